/** A model's blocks: one cell each, with the number of nodes in it. */

import { make, mark, write } from './elements';
import type { Model } from './protocol';
import { blocks, count, number, tight, where } from './words';

type Level = 'none' | 'thin' | 'some' | 'many';

function level(nodes: number, thinBelow: number, most: number): Level {
  if (!nodes) return 'none';
  if (nodes < thinBelow) return 'thin';
  return nodes * 2 > most && most >= 2 * thinBelow ? 'many' : 'some';
}

/** Weak blocks in a sentence: all that the cells say to those who see them. */
export function weakness(model: Model): string {
  const missing = where(model.blocks, (nodes) => nodes === 0);
  const thin = where(model.blocks, (nodes) => nodes > 0 && nodes < model.thin_below);
  const said: string[] = [];
  if (missing.length) said.push(`Nobody serves ${named(missing)}.`);
  if (thin.length) {
    const each =
      model.thin_below === 2 ? 'one node' : `fewer than ${count(model.thin_below, 'node')}`;
    said.push(`Thin, with ${each}: ${named(thin)}.`);
  }
  if (!said.length) {
    said.push(`Every block is served by ${count(Math.min(...model.blocks), 'node')} or more.`);
  }
  return said.join(' ');
}

function named(which: number[]): string {
  return `${which.length === 1 ? 'block' : 'blocks'} ${blocks(which)}`;
}

export function pointed(model: Model, block: number): string {
  const nodes = model.blocks[block] ?? 0;
  if (!nodes) return `Block ${block}: nobody`;
  return `Block ${block}: ${count(nodes, 'node')}, up to ${number(model.rates[block] ?? 0)} tokens a second`;
}

export class Strip {
  readonly element = make('div', 'strip');
  readonly #cells: HTMLElement[] = [];

  constructor(labelledBy: string) {
    this.element.setAttribute('role', 'img');
    this.element.setAttribute('aria-labelledby', labelledBy);
  }

  show(model: Model): void {
    const most = Math.max(...model.blocks, 0);
    while (this.#cells.length > model.blocks.length) this.#cells.pop()?.remove();
    const added = document.createDocumentFragment();
    model.blocks.forEach((nodes, block) => {
      let cell = this.#cells[block];
      if (!cell) {
        cell = make('span', 'cell');
        cell.dataset.block = String(block);
        this.#cells.push(cell);
        added.append(cell);
      }
      write(cell, tight(nodes));
      mark(cell, 'level', level(nodes, model.thin_below, most));
    });
    this.element.append(added);
  }
}
