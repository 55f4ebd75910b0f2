/** The map's JSON, as docs/MAP.md describes it. */

export interface Model {
  id: string;
  name: string;
  state: 'whole' | 'gaps' | 'idle';
  nodes: number;
  fetching: number;
  blocks: number[];
  rates: number[];
  rate: number;
  missing: number;
  thin: number;
  thin_below: number;
  engines: Record<string, number>;
}

export interface Totals {
  state: 'up' | 'gaps' | 'idle';
  nodes: number;
  fetching: number;
  connected: number;
  hosts: Record<string, number>;
  engines: Record<string, number>;
  throughput: number;
  models: number;
  whole: number;
}

export interface Relay {
  name: string;
  own: boolean;
  nodes: number;
}

export interface NetworkMap {
  time: number;
  totals: Totals;
  models: Model[];
  relays: Relay[];
}

/** Those by which the network is judged: the relay's own, or all where it offers none. */
export function judged({ models }: NetworkMap): Model[] {
  const own = models.filter((model) => model.name);
  return own.length ? own : models;
}

/** What the history keeps of a minute. */
export const FIELDS = [
  'time',
  'nodes',
  'whole',
  'covered',
  'blocks',
  'throughput',
  'answers',
  'tokens',
  'forwarded',
] as const;
export type Field = (typeof FIELDS)[number];
export type Sample = Record<Field, number>;
export type History = Record<Field, number[]>;

export type Message =
  | ({ type: 'map' } & NetworkMap)
  | {
      type: 'change';
      time: number;
      totals: Totals;
      models?: Model[];
      order?: string[];
      relays?: Relay[];
    }
  | ({ type: 'sample' } & Sample)
  | { type: 'alive' };

/** The map after a change. Models that stayed as they were are the same objects. */
export function changed(map: NetworkMap, change: Extract<Message, { type: 'change' }>): NetworkMap {
  const known = new Map(map.models.map((model) => [model.id, model]));
  for (const model of change.models ?? []) known.set(model.id, model);
  const order = change.order ?? map.models.map((model) => model.id);
  return {
    time: change.time,
    totals: change.totals,
    models: order.flatMap((id) => known.get(id) ?? []),
    relays: change.relays ?? map.relays,
  };
}
