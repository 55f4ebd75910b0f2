/** One card a model. */

import { byId, keep, make, mark, write } from './elements';
import { judged, type Model, type NetworkMap } from './protocol';
import { pointed, Strip, weakness } from './strip';
import { count, number } from './words';

const STATES: Record<Model['state'], string> = {
  whole: 'can be asked',
  gaps: 'has gaps',
  idle: 'waits for nodes',
};

class Card {
  readonly element = make('article', 'card model');
  readonly #name = make('h3');
  readonly #badge = make('p', 'badge');
  readonly #facts = make('p', 'facts');
  readonly #weak = make('p', 'weak');
  readonly #blocks = make('div');
  readonly #pointed = make('p', 'pointed soft');
  readonly #table = make('table');
  readonly #details = make('details');
  readonly #strip: Strip;
  #model: Model | undefined;
  #block: number | undefined;

  constructor(id: string) {
    const head = make('div', 'model-head');
    head.append(this.#name, this.#badge);
    this.#name.id = `name-${id}`;
    this.element.setAttribute('aria-labelledby', this.#name.id);
    this.#weak.id = `weak-${id}`;
    this.#strip = new Strip(this.#weak.id);
    this.#details.append(make('summary', '', 'Blocks as a table'), this.#table);
    this.#details.addEventListener('toggle', () => this.#tabulate());
    this.#pointed.setAttribute('aria-hidden', 'true');
    const foot = make('div', 'model-foot');
    foot.append(this.#details, this.#pointed);
    this.#blocks.append(this.#strip.element, this.#weak, foot);
    this.element.append(head, this.#facts, this.#blocks);
    for (const kind of ['pointerover', 'click'] as const) {
      this.#strip.element.addEventListener(kind, (event) => {
        const { block } = (event.target as HTMLElement).dataset;
        this.#block = block === undefined ? undefined : Number(block);
        this.#point();
      });
    }
  }

  show(model: Model): void {
    if (model === this.#model) return;
    this.#model = model;
    write(this.#name, model.name || `Model ${model.id.slice(0, 8)}`);
    write(this.#badge, STATES[model.state]);
    mark(this.#badge, 'state', model.state);
    write(this.#facts, facts(model));
    this.#blocks.hidden = model.state === 'idle'; // a field of zeros says no more than the badge
    write(this.#weak, weakness(model));
    this.#strip.show(model);
    this.#point();
    this.#tabulate();
  }

  #point(): void {
    const model = this.#model;
    if (!model) return;
    const block = this.#block ?? model.blocks.length;
    write(this.#pointed, block < model.blocks.length ? pointed(model, block) : '');
  }

  /** Neighbours that are alike share a row. Made only for those who look. */
  #tabulate(): void {
    const model = this.#model;
    if (!model || !this.#details.open) return;
    const head = make('tr');
    for (const title of ['Blocks', 'Nodes', 'Tokens a second, at most']) {
      const cell = make('th', '', title);
      cell.scope = 'col';
      head.append(cell);
    }
    const rows = [head];
    for (let first = 0, block = 1; block <= model.blocks.length; block++) {
      if (model.blocks[block] === model.blocks[first] && model.rates[block] === model.rates[first])
        continue;
      const row = make('tr');
      const name = make('th', '', first === block - 1 ? `${first}` : `${first}–${block - 1}`);
      name.scope = 'row';
      const nodes = model.blocks[first] ?? 0;
      const weak = nodes === 0 ? ' (missing)' : nodes < model.thin_below ? ' (thin)' : '';
      row.append(
        name,
        make('td', '', number(nodes) + weak),
        make('td', '', number(model.rates[first] ?? 0)),
      );
      rows.push(row);
      first = block;
    }
    this.#table.replaceChildren(...rows);
  }
}

function facts(model: Model): string {
  const said = [count(model.blocks.length, 'block')];
  if (model.nodes) said.push(count(model.nodes, 'node'));
  if (model.fetching) said.push(`${number(model.fetching)} more on the way`);
  if (model.state === 'whole') said.push(`up to ${number(model.rate)} tokens a second`);
  if (!model.name) said.push('not offered by this relay');
  return said.join(' · ');
}

/** Models that are shown without being asked for. */
const FIRST = 8;

const cards = new WeakMap<HTMLElement, Card>();

/** The relay's own models, or the first few where it has none; the others on demand. */
export function showModels(map: NetworkMap): void {
  const first = judged(map).slice(0, FIRST);
  const others = map.models.filter((model) => !first.includes(model));
  byId('models').hidden = !map.models.length;
  show(byId('cards'), first);
  const details = byId<HTMLDetailsElement>('others');
  details.hidden = !others.length;
  write(byId('others-title'), count(others.length, 'more model'));
  if (details.open) show(byId('other-cards'), others);
  const unlisted = map.totals.models - map.models.length;
  const note = byId('unlisted');
  note.hidden = unlisted <= 0;
  if (unlisted > 0) write(note, `Not shown: ${count(unlisted, 'model')} with fewer nodes.`);
}

function show(parent: HTMLElement, models: readonly Model[]): void {
  keep(
    parent,
    models,
    (model) => model.id,
    (model) => {
      const card = new Card(model.id);
      cards.set(card.element, card);
      return card.element;
    },
    (element, model) => cards.get(element)?.show(model),
  );
}
