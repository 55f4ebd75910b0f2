/** What the visitor lends right now, in a corner of the page, with the way out one press away. */

import type { Status, Use } from './status';
import { button, entry, h, mark, surface } from './surface';

export interface MeterActions {
  stop(): void;
  start(): void;
  /** Withdraw consent, which takes the meter away. */
  remove(): void;
}

export class Meter {
  readonly #surface;
  readonly #label = h('span');
  readonly #spoken = h('span', { role: 'status', class: 'spoken' });
  readonly #rows = h('dl');
  readonly #pill: HTMLButtonElement;
  readonly #toggle: HTMLButtonElement;
  #running = true;

  /** Without actions it can only say what is wrong, and be closed. */
  constructor(side: string, actions: MeterActions | null) {
    this.#surface = surface(CSS);
    this.#toggle = button('', () => (this.#running ? actions?.stop() : actions?.start()));
    this.#toggle.hidden = !actions;
    const away = button(actions ? 'Withdraw consent' : 'Close', () =>
      (actions ?? this.#surface.host).remove(),
    );
    const panel = h(
      'div',
      { id: 'p', class: 'panel k', hidden: '' },
      this.#rows,
      h('footer', {}, this.#toggle, away),
    );
    const pill = button('', () => {
      panel.hidden = !panel.hidden;
      pill.ariaExpanded = `${!panel.hidden}`;
    });
    pill.append(mark(), this.#label);
    pill.className = 'pill k';
    pill.ariaExpanded = 'false';
    pill.setAttribute('aria-controls', 'p');
    this.#pill = pill;
    this.#surface.root.append(
      h('section', { 'aria-label': 'KwaaiNet', class: side }, panel, pill, this.#spoken),
    );
    this.say('starting', true);
  }

  /** A state in a word or two, for eyes and screen readers. */
  say(state: string, running: boolean): void {
    this.#running = running;
    this.#toggle.textContent = running ? 'Stop' : 'Start';
    this.#label.textContent = state;
    if (this.#spoken.textContent !== `KwaaiNet: ${state}`)
      this.#spoken.textContent = `KwaaiNet: ${state}`;
    this.#pill.classList.toggle('off', !running);
  }

  progress(text: string, share: number | null): void {
    this.#label.textContent = share === null ? text : `${text} ${Math.round(share * 100)} %`;
  }

  show({ state, peers, served, seeded = 0, budget }: Status): void {
    this.say(`${state} · ${peers.length} peer${peers.length === 1 ? '' : 's'}`, true);
    this.#rows.replaceChildren(
      ...entry('Tokens served', String(served.tokens)),
      ...(seeded ? entry('Files given', `${Math.ceil(seeded / 1e6)} MB`) : []),
      ...use('Processor', budget.cpu, '%'),
      ...use('Memory', budget.memory, 'MB'),
      ...use('Storage', budget.storage, 'MB'),
    );
  }

  fail(message: string): void {
    this.say('not running', false);
    this.#rows.replaceChildren(h('dt', {}, message));
  }

  remove(): void {
    this.#surface.host.remove();
  }
}

function use(term: string, { used, limit }: Use, unit: string): HTMLElement[] {
  const bar = h('progress', { 'aria-label': term, max: String(limit || 1), value: String(used) });
  return entry(term, `${Math.round(used)} of ${Math.round(limit)} ${unit}`, bar);
}

const CSS = `
section{position:fixed;z-index:999999;right:16px;bottom:calc(16px + env(safe-area-inset-bottom));display:grid;justify-items:end;gap:8px}
section.left{right:auto;left:16px;justify-items:start}
.pill{display:flex;gap:8px;align-items:center;padding:0 14px 0 10px;font-size:13px;font-weight:600;
border:1px solid var(--line);border-radius:22px;box-shadow:0 4px 16px #0003}
.off i{filter:grayscale(1)}
.panel{width:288px;max-width:calc(100vw - 32px);padding:16px;border:1px solid var(--line);border-radius:20px;box-shadow:0 4px 16px #0003}
dl{display:grid;grid-template-columns:auto 1fr;gap:8px 16px}
dd{text-align:end;color:var(--soft)}
progress{display:block;width:100%;height:6px;margin-top:4px;accent-color:var(--deep)}
footer{display:grid;grid-template-columns:1fr auto;gap:8px;margin-top:16px}
footer button{font-size:13px;padding:8px 12px}
.spoken{position:absolute;clip-path:inset(50%)}
`;
