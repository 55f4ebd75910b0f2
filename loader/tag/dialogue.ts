/** Asks the visitor, once and plainly. */

import { type Resources, size } from './resources';
import { button, entry, h, mark, surface } from './surface';

export interface Dialogue {
  /** True, false, or null for "not now" (Escape). */
  answer: Promise<boolean | null>;
  close(): void;
}

export function openDialogue(site: string, { cpu, memory, storage }: Resources): Dialogue {
  const { host, root } = surface(CSS);
  const title = h('h2', { id: 't', tabindex: '-1' }, `Lend ${site} a little of this computer?`);
  const no = button('No thanks', () => settle(false));
  // A visitor's own press, not a script's.
  const yes = button('Yes, lend it', (event) => event.isTrusted && settle(true));
  const dialog = h(
    'dialog',
    { class: 'k', 'aria-labelledby': 't', 'aria-describedby': 'd' },
    h('header', {}, mark(), h('span', {}, 'KwaaiNet')),
    title,
    h(
      'p',
      { id: 'd' },
      "AI on this site runs on its visitors' computers, not in a data centre. While this page is open:",
    ),
    h(
      'dl',
      {},
      ...entry(
        'You lend',
        `Up to ${cpu} % of one processor core, ${size(memory)} of memory and ${size(storage)} of storage.`,
      ),
      ...entry(
        'You get',
        'Answers from a model that the visitors run together, free, without an account.',
      ),
      ...entry(
        'What passes through',
        "Prompts as numbers: others' here, yours elsewhere. They are not words but can give words away, so keep secrets out.",
      ),
      ...entry('Who sees you', 'The computers you connect to see your network (IP) address.'),
    ),
    h('p', {}, 'You can stop or take this back at any time on this page.'),
    h('footer', {}, no, yes),
  );
  root.append(dialog);

  let settle: (answer: boolean | null) => void = () => {};
  const answer = new Promise<boolean | null>((resolve) => {
    settle = (value) => {
      dialog.close();
      host.remove();
      resolve(value);
    };
  });
  dialog.oncancel = () => settle(null);
  // Modal: the browser keeps focus inside and the page behind inert.
  dialog.showModal();
  title.focus(); // so that a screen reader begins at the beginning
  return { answer, close: () => settle(null) };
}

const CSS = `
dialog{width:480px;max-width:calc(100% - 32px);max-height:calc(100dvh - 32px);overflow:auto;margin:auto;padding:28px 32px 0;
border:1px solid var(--line);border-radius:20px;box-shadow:0 4px 16px #0003}
dialog::backdrop{background:#0a141299}
header{display:flex;gap:8px;align-items:center;font-size:13px;font-weight:600;color:var(--deep)}
h2{margin:14px 0 8px;font-size:24px;line-height:1.25;font-weight:600;outline:0}
dl{margin:16px 0;border-bottom:1px solid var(--line)}
dt{padding-top:10px;border-top:1px solid var(--line);font-weight:600}
dd{padding-bottom:10px;color:var(--soft)}
footer{display:grid;grid-template-columns:1fr 1fr;gap:12px;position:sticky;bottom:0;padding:20px 0;background:var(--paper)}
footer button{background:var(--deep);color:var(--on)}
@media(max-width:520px){dialog{width:100%;max-width:none;margin:auto 0 0;padding:20px 20px 0;border-width:1px 0 0;border-radius:20px 20px 0 0}h2{font-size:21px}}
@media(prefers-reduced-motion:no-preference){dialog{animation:a .3s}@keyframes a{from{transform:translateY(16px);opacity:0}}}
`;
