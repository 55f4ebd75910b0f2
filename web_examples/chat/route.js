/** Draws who runs which layers, and how a token gets from one to the next. */

const list = document.getElementById('route');
const text = document.getElementById('route-text');

const ENGINES = {
  webgpu: 'WebGPU',
  wasm: 'WebAssembly',
  'wasm-int4': 'WebAssembly, int4',
  onnxruntime: 'native',
};
const WAYS = { local: 'in this tab', webrtc: 'WebRTC', relay: 'relay' };
const COLOURS = 6;

/** Peers keep their colour while the page is open. */
const colours = new Map();

let shown = '';

/** A route that tokens take, hop by hop, in order. `running` while they do. */
export function drawRoute(route, blocks, self, running) {
  const last = route.at(-1);
  const total = blocks || (last ? last.last_block : 0);
  text.textContent = `${route.length === 1 ? 'One computer runs' : `${route.length} computers run`} the ${total} layers, one after the other.`;
  draw(
    [
      end('This tab', 'turns your words into numbers'),
      ...route.map((hop) => stop(hop, total, self)),
      end('This tab', 'chooses the next token and goes round again', last?.path),
    ],
    running,
  );
}

/** Who could take part, as far as this node knows. */
export function drawNetwork({ model, span, peers, peer, engine, host }) {
  if (!model) return waiting('Waiting for the model.');
  const own = span && {
    peer,
    engine,
    host,
    path: 'local',
    first_block: span[0],
    last_block: span[1],
  };
  const known = (own ? [own] : []).concat(peers);
  const missing = uncovered(known, model.blocks);
  text.textContent = missing.length
    ? `Nobody runs ${layers(missing[0], missing.at(-1) + 1)} of ${model.blocks} yet. Open this page in another tab or on another device: it will take them.`
    : `${model.name}: every one of its ${model.blocks} layers is here.`;
  draw(
    known
      .sort((a, b) => a.first_block - b.first_block)
      .map((each) => stop(each, model.blocks, peer, missing)),
    false,
  );
  return undefined;
}

export function waiting(message) {
  text.textContent = message;
  list.replaceChildren();
  shown = '';
}

export function setFlowing(flowing) {
  list.classList.toggle('flowing', flowing);
}

function draw(items, running) {
  setFlowing(running);
  const next = items.map((item) => item.outerHTML).join('');
  if (next === shown) return; // do not disturb a screen reader, nor the animation
  shown = next;
  list.replaceChildren(...items);
}

function end(who, how, way = '') {
  const item = entry(who, how);
  item.dataset.way = way;
  item.className = 'end';
  return item;
}

function stop(hop, total, self, missing = []) {
  const { peer, first_block: first, last_block: last, engine, path, host } = hop;
  const mine = peer === self || path === 'local';
  if (!colours.has(peer)) colours.set(peer, mine ? 0 : 1 + (colours.size % (COLOURS - 1)));
  const where = host === 'native' ? 'Server' : 'Tab';
  const way = WAYS[path] ?? 'not connected yet';
  const how = [capital(layers(first, last)), ENGINES[engine] ?? engine, ...(mine ? [] : [way])];
  const item = entry(mine ? 'This tab' : `${where} …${peer.slice(-5)}`, how.join(' · '), time(hop));
  item.style.setProperty('--hop', `var(--hop-${colours.get(peer)})`);
  item.dataset.way = path ?? '';
  item.append(blocks(first, last, total, missing));
  return item;
}

function entry(who, how, ms = '') {
  const item = document.createElement('li');
  item.append(
    line('p', 'who', line('span', '', who), line('span', 'ms', ms)),
    line('p', 'how', how),
  );
  return item;
}

function line(name, className, ...children) {
  const element = document.createElement(name);
  element.className = className;
  element.append(...children);
  return element;
}

/** A row of all layers, the hop's own filled. The words beside it say the same. */
function blocks(first, last, total, missing) {
  const row = line('div', 'blocks');
  row.setAttribute('aria-hidden', 'true');
  row.style.setProperty('--n', total);
  for (let block = 0; block < total; block += 1) {
    const cell = document.createElement('i');
    if (block >= first && block < last) cell.className = 'on';
    else if (missing.includes(block)) cell.className = 'gap';
    cell.style.setProperty('--i', block);
    row.append(cell);
  }
  return row;
}

function uncovered(known, total) {
  const covered = (block) =>
    known.some((each) => each.first_block <= block && block < each.last_block);
  return Array.from({ length: total }, (_, block) => block).filter((block) => !covered(block));
}

function time({ step_ms: step, rtt_ms: rtt }) {
  if (typeof step === 'number') return `${round(step)} ms a token`;
  return typeof rtt === 'number' ? `${round(rtt)} ms away` : '';
}

function round(ms) {
  return ms < 10 ? ms.toFixed(1) : Math.round(ms);
}

/** People count from one. */
function layers(first, last) {
  return last - first === 1 ? `layer ${last}` : `layers ${first + 1} to ${last}`;
}

function capital(words) {
  return words[0].toUpperCase() + words.slice(1);
}
