/** What a visitor understands first: is it up, what can be asked, how many nodes, what is weak. */

import { byId, keep, make, write } from './elements';
import { judged, type Model, type NetworkMap, type Relay } from './protocol';
import { count, engine, number } from './words';

interface Tile {
  title: string;
  value: string;
  note: string;
}

export function showOverview(map: NetworkMap): void {
  const { totals } = map;
  const [headline, lead] = words(map);
  write(byId('headline'), headline);
  write(byId('lead'), lead);
  document.title = `${headline} · KwaaiNet`;
  const served = judged(map).filter((model) => model.nodes);
  const sum = (of: (model: Model) => number) => served.reduce((all, model) => all + of(model), 0);
  const missing = sum((model) => model.missing);
  const thin = sum((model) => model.thin);
  const blocks = sum((model) => model.blocks.length);
  const tiles: Tile[] = [
    { title: 'Nodes', value: number(totals.nodes), note: kinds(totals.hosts, totals.fetching) },
    {
      title: 'Models to ask',
      value: number(totals.whole),
      note: known(map),
    },
    {
      title: 'Weak blocks',
      value: number(missing + thin),
      note: blocks
        ? `${number(missing)} missing, ${number(thin)} thin, of ${number(blocks)}`
        : 'none is served yet',
    },
    {
      title: 'Steps a second',
      value: number(totals.throughput),
      note: 'through one block, all nodes together',
    },
  ];
  keep(
    byId('tiles'),
    tiles,
    ({ title }) => title,
    ({ title }) => {
      const tile = make('div', 'tile');
      tile.append(make('dt', '', title), make('dd', 'value'), make('dd', 'note soft'));
      return tile;
    },
    (element, { value, note }) => {
      write(element.children[1] as HTMLElement, value);
      write(element.children[2] as HTMLElement, note);
    },
  );
  byId('begin').hidden = totals.nodes + totals.fetching > 0;
  showEngines(totals.engines);
  showRelays(map.relays);
}

function words({ totals, models }: NetworkMap): [string, string] {
  const nodes = count(totals.nodes, 'node');
  const whole = models
    .filter((model) => model.state === 'whole' && model.name)
    .map(({ name }) => name);
  if (totals.state === 'up') {
    const names = whole.length && whole.length < 4 ? `: ${whole.join(', ')}` : '';
    const asked = `${count(totals.whole, 'model')} can be asked${names}.`;
    return [
      'The network is up',
      `${asked} ${nodes} ${totals.nodes === 1 ? 'runs' : 'run'} the layers.`,
    ];
  }
  if (totals.state === 'gaps') {
    return [
      'Almost there',
      `${nodes} ${totals.nodes === 1 ? 'is' : 'are'} here, but no model is whole yet: some blocks wait for somebody to serve them.`,
    ];
  }
  if (totals.fetching) {
    return [
      'Starting up',
      `${count(totals.fetching, 'node')} ${totals.fetching === 1 ? 'fetches its' : 'fetch their'} part of a model right now.`,
    ];
  }
  return ['The relay is up, and waits for nodes', 'Nobody serves a model here yet.'];
}

function known(map: NetworkMap): string {
  const { length } = judged(map);
  if (!length) return 'none is known here';
  return `of ${number(length)} that ${length === 1 ? 'is' : 'are'} ${map.models[0]?.name ? 'offered' : 'served'} here`;
}

function kinds(hosts: Record<string, number>, fetching: number): string {
  const { tab = 0, native = 0, simulated = 0 } = hosts;
  const said: string[] = [];
  if (tab) said.push(count(tab, 'browser tab'));
  if (native) said.push(`${number(native)} native`);
  if (simulated) said.push(`${number(simulated)} simulated`);
  if (fetching) said.push(`${number(fetching)} on the way`);
  return said.join(', ') || 'none yet';
}

function showEngines(engines: Record<string, number>): void {
  const rows = Object.entries(engines).sort(([, a], [, b]) => b - a);
  const most = Math.max(1, ...rows.map(([, nodes]) => nodes));
  keep(
    byId('engines'),
    rows.length ? rows : [['', 0] as [string, number]],
    ([name]) => name,
    ([name]) => {
      const row = make('li', name ? '' : 'soft', name ? '' : 'No node yet.');
      if (!name) return row;
      const bar = document.createElement('meter');
      bar.setAttribute('aria-hidden', 'true');
      row.append(make('span'), make('span', 'amount'), bar);
      return row;
    },
    (row, [name, nodes]) => {
      if (!name) return;
      const [label, amount, bar] = row.children as unknown as [
        HTMLElement,
        HTMLElement,
        HTMLMeterElement,
      ];
      write(label, engine(name));
      write(amount, count(nodes, 'node'));
      if (bar.max !== most) bar.max = most;
      if (bar.value !== nodes) bar.value = nodes;
    },
  );
}

function showRelays(relays: readonly Relay[]): void {
  keep(
    byId('relays'),
    relays,
    ({ name, own }) => `${own}${name}`,
    () => {
      const row = make('li');
      row.append(make('span', 'relay-name'), make('span', 'soft'));
      return row;
    },
    (row, { name, own, nodes }) => {
      const [label, note] = row.children as unknown as [HTMLElement, HTMLElement];
      write(label, name || location.host);
      write(note, own ? `this one · ${count(nodes, 'connection')}` : count(nodes, 'node'));
    },
  );
}
