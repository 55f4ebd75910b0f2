/** The last day, minute by minute. */

import uPlot from 'uplot';
import { byId, make, write } from './elements';
import { FIELDS, type History, judged, type NetworkMap, type Sample } from './protocol';
import { clock, number } from './words';

/** Samples kept: a day of minutes. */
const LENGTH = 1440;

interface Kind {
  title: string;
  unit: string;
  value(sample: Sample): number;
  /** Fixed highest value, where there is one. */
  top?: number;
  /** Whether it is left out as long as it has never been anything but 0. */
  rare?: boolean;
}

const KINDS: Kind[] = [
  { title: 'Nodes', unit: '', value: (at) => at.nodes },
  {
    title: 'Blocks covered',
    unit: ' %',
    value: (at) => (at.blocks ? Math.floor((100 * at.covered) / at.blocks) : 0),
    top: 100,
  },
  { title: 'Steps a second', unit: '', value: (at) => at.throughput },
  { title: 'API tokens a minute', unit: '', value: (at) => at.tokens, rare: true },
];

export class Charts {
  #samples: Sample[] = [];
  #now: Sample | undefined;
  readonly #charts = KINDS.map((kind) => new Chart(kind));
  readonly #parent = byId('charts');

  constructor() {
    this.#parent.append(...this.#charts.map((chart) => chart.element));
    const redraw = () => this.#draw();
    for (const query of ['(prefers-color-scheme: dark)', '(forced-colors: active)']) {
      matchMedia(query).addEventListener('change', () => {
        for (const chart of this.#charts) chart.forget();
        redraw();
      });
    }
    new ResizeObserver(redraw).observe(this.#parent);
  }

  begin(history: History): void {
    this.#samples = history.time.map((_, index) => {
      const entries = FIELDS.map((name) => [name, history[name][index] ?? 0]);
      return Object.fromEntries(entries) as Sample;
    });
    this.#draw();
  }

  add(sample: Sample): void {
    this.#samples = [...this.#samples, sample].slice(-LENGTH);
    this.#draw();
  }

  /** The map's own numbers are the line's end. */
  now(map: NetworkMap): void {
    const served = judged(map).filter((model) => model.nodes);
    const blocks = served.reduce((sum, model) => sum + model.blocks.length, 0);
    const missing = served.reduce((sum, model) => sum + model.missing, 0);
    const last = this.#samples.at(-1);
    const before = this.#now;
    this.#now = {
      time: Math.max(Math.round(Date.now() / 1000), (last?.time ?? 0) + 1),
      nodes: map.totals.nodes,
      whole: map.totals.whole,
      covered: blocks - missing,
      blocks,
      throughput: map.totals.throughput,
      answers: 0,
      tokens: 0,
      forwarded: 0,
    };
    const same = KINDS.every(
      ({ value }) => before && this.#now && value(before) === value(this.#now),
    );
    if (!same) this.#draw();
  }

  #draw(): void {
    const shown = [...this.#samples];
    // A minute's tokens are known when it is over.
    if (this.#now) shown.push({ ...this.#now, tokens: shown.at(-1)?.tokens ?? 0 });
    const enough = this.#samples.length > 0 && shown.length > 1;
    byId('time-hint').hidden = enough;
    for (const chart of this.#charts) chart.show(enough ? shown : [], this.#parent);
  }
}

class Chart {
  readonly element = make('figure', 'chart card');
  readonly #place = make('div', 'plot');
  readonly #value = make('span', 'chart-value');
  readonly #note = make('p', 'soft');
  #plot: uPlot | undefined;
  #samples: Sample[] = [];

  constructor(private readonly kind: Kind) {
    const caption = make('figcaption');
    caption.append(make('span', '', kind.title), this.#value);
    this.#place.setAttribute('aria-hidden', 'true'); // the note says it in words
    this.element.append(caption, this.#place, this.#note);
    this.element.hidden = true;
  }

  /** Colours have changed: draw with new ones. */
  forget(): void {
    this.#plot?.destroy();
    this.#plot = undefined;
  }

  show(samples: Sample[], parent: HTMLElement): void {
    const values = samples.map(this.kind.value);
    const empty = !samples.length || (this.kind.rare && !values.some(Boolean));
    this.element.hidden = Boolean(empty);
    if (empty || !parent.clientWidth) return;
    this.#samples = samples;
    const { unit } = this.kind;
    const low = Math.min(...values);
    const high = Math.max(...values);
    const hours = ((samples.at(-1)?.time ?? 0) - (samples[0]?.time ?? 0)) / 3600;
    const span =
      hours < 1.5 ? `${Math.max(1, Math.round(hours * 60))} min` : `${Math.round(hours)} h`;
    write(this.#value, `${number(values.at(-1) ?? 0)}${unit}`);
    write(this.#note, `Last ${span}: lowest ${number(low)}${unit}, highest ${number(high)}${unit}`);
    const data: uPlot.AlignedData = [samples.map(({ time }) => time), values];
    const width = this.#place.clientWidth;
    if (!this.#plot) this.#plot = new uPlot(this.#options(width), data, this.#place);
    else {
      if (this.#plot.width !== width) this.#plot.setSize({ width, height: HEIGHT });
      this.#plot.setData(data);
    }
  }

  #options(width: number): uPlot.Options {
    const style = getComputedStyle(this.#place);
    const text = getComputedStyle(this.#note).color;
    const font = `12px ${style.fontFamily}`;
    const axis: uPlot.Axis = {
      stroke: text,
      font,
      ticks: { show: false },
      grid: { stroke: style.borderTopColor, width: 1 },
    };
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
      scales: {
        x: { time: true },
        y: { range: (_, __, high) => [0, room(this.kind.top ?? high)] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          space: 52,
          size: 28,
          incrs: MINUTES.map((minutes) => 60 * minutes),
          values: (_, ticks) => ticks.map((tick) => clock(tick)),
        },
        {
          ...axis,
          size: 46,
          space: 34,
          values: (_, ticks) =>
            ticks.map((tick) =>
              tick % 1 || tick > (this.kind.top ?? tick) ? '' : TICK.format(tick),
            ),
        },
      ],
      series: [
        {},
        {
          stroke: style.color,
          fill: style.textDecorationColor,
          width: 2,
          points: { show: false },
        },
      ],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    };
  }

  #read(index: number | null | undefined): void {
    const at = this.#samples[index ?? this.#samples.length - 1];
    if (!at) return;
    const value = `${number(this.kind.value(at))}${this.kind.unit}`;
    write(this.#value, index == null ? value : `${value} at ${clock(at.time)}`);
  }
}

/** Between two times on the axis. */
const MINUTES = [1, 5, 15, 30, 60, 120, 180, 360, 720];

const HEIGHT = 150;

/** A little above the highest value, and never nothing. */
function room(high: number): number {
  return Math.max(4, high * 1.1);
}

const TICK = new Intl.NumberFormat('en', { notation: 'compact' });
