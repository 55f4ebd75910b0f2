/**
 * Stands in for worker.js: speaks loader/protocol.ts without Python, model or network.
 *
 * Token n of every answer is the word " w<n>", so a test sees at once what was lost or repeated.
 * The prompt says what should go wrong:
 *   "hold 5"    stop after 5 tokens and wait, unless resumed further than that
 *   "fail"      answer with an error
 *   "die"       show a new boot id at every heartbeat from now on
 *   "pair"      connect the first two pages by WebRTC and answer with what each received
 *   "lonely"    open a link whose peer never answers properly, and tell why it closed
 */

let bootId = crypto.randomUUID();
let dying = false;
const ports = [];
const log = { boots: [], cancelled: [], left: 0, limits: null, requests: [], stops: [] };

self.addEventListener('install', () => self.skipWaiting?.());
self.addEventListener('message', ({ data, ports: [port] }) => {
  if (data.type === 'heartbeat') {
    if (dying) bootId = crypto.randomUUID();
    port.postMessage({ type: 'alive', boot: bootId });
  }
  if (data.type === 'boot') join(port, data);
});

function join(port, { config, hosting, version }) {
  const page = { port, links: new Map() };
  ports.push(page);
  log.boots.push({ config, hosting, version });
  port.onmessage = ({ data }) => hear(page, data);
  port.postMessage({ type: 'alive', boot: bootId });
  const progress = { stage: 'model', text: 'Loading the model', share: 0.5 };
  port.postMessage({ type: 'notice', event: 'progress', value: progress });
  const worker = { hosting, boot: bootId, fromSnapshot: false, ms: 1 };
  port.postMessage({ type: 'notice', event: 'worker', value: worker });
  port.postMessage({ type: 'notice', event: 'status', value: status(hosting) });
}

function hear(page, message) {
  if (message.type === 'probe') page.port.postMessage({ type: 'alive', boot: bootId });
  if (message.type === 'leave') log.left += 1;
  if (message.type === 'call') answer(page, message);
  if (message.type.startsWith('rtc-')) page.links.get(message.link)?.(message);
}

function answer(page, { id, method, params }) {
  const reply = (event, rest) => page.port.postMessage({ type: 'reply', id, event, ...rest });
  if (method === 'status') reply('done', { value: { ...status('fake'), log } });
  else if (method === 'cancel') log.cancelled.push(params.call);
  else if (method === 'limits') reply('done', { value: (log.limits = params) });
  else if (method === 'stop') reply('done', { value: log.stops.push(params) });
  else if (method === 'generate') generate(page, id, params, reply);
  else reply('error', { error: { code: 'ProtocolError', message: `no method ${method}` } });
}

function generate(page, id, params, reply) {
  log.requests.push(params);
  const { prompt = 'chat', max_tokens: total = 8, resume_ids: had = [] } = params;
  if (prompt === 'fail') {
    const error = { code: 'NoRoute', message: 'nobody serves block 3', data: { missing: 3 } };
    return reply('error', { error });
  }
  if (prompt === 'die') dying = self instanceof (self.ServiceWorkerGlobalScope ?? class {});
  if (prompt === 'pair') return pair(reply);
  if (prompt === 'lonely') return lonely(page, reply);
  const hold = Number(/^hold (\d+)/.exec(prompt)?.[1] ?? (dying ? had.length + 1 : total));
  let next = had.length;
  const value = { call: id, route: outcome(params, 0).route };
  page.port.postMessage({ type: 'notice', event: 'route', value });
  const step = () => {
    if (next === hold && next < total) return;
    if (next === total) return reply('done', { value: outcome(params, total) });
    reply('chunk', { value: { text: ` w${next}`, ids: [next] } });
    next += 1;
    setTimeout(step, 1);
  };
  // A resumed answer has got over what held it.
  if (had.length >= hold) return rest(had.length, total, params, reply);
  step();
}

function rest(from, total, params, reply) {
  for (let n = from; n < total; n += 1)
    reply('chunk', { value: { text: ` w${n}`, ids: [n] } });
  reply('done', { value: outcome(params, total) });
}

function outcome({ model = 'fake' }, total) {
  const ids = Array.from({ length: total }, (_, n) => n);
  return {
    text: ids.map((n) => ` w${n}`).join(''),
    ids,
    prompt_ids: [101, 102],
    finish_reason: 'length',
    usage: { prompt_tokens: 2, completion_tokens: total },
    route: [{ peer: 'me', host: 'tab', first_block: 0, last_block: 6, engine: 'wasm', path: 'local' }],
    ttft_ms: 12,
    decode_tok_s: 40,
    model,
  };
}

function status(host) {
  const chat = log.boots.at(-1)?.config.attributes.model === 'talkative';
  return {
    state: 'ready',
    peer: '12D3KooWFake',
    model: { name: 'fake', blocks: 6, id: 'f00', chat },
    span: [0, 3],
    engine: 'wasm',
    host,
    relay: { url: 'wss://relay.example', connected: true },
    peers: [{ peer: '12D3KooWOther', host: 'tab', first_block: 3, last_block: 6, engine: 'webgpu', path: 'webrtc', rtt_ms: 21 }],
    budget: { cpu: { limit: 20, used: 6 }, memory: { limit: 1024, used: 310 }, storage: { limit: 5000, used: 64 } },
    served: { tokens: 1234, sessions: 5 },
    seeded: 12_300_000,
    version: 'fake',
  };
}

/** Crosses the signals of two pages, then sends numbered messages both ways. */
function pair(reply) {
  const LINK = 7;
  const MESSAGES = 300;
  const ends = ports.slice(0, 2);
  const received = [[], []];
  const told = [];
  ends.forEach((end, side) => {
    const other = ends[1 - side].port;
    end.links.set(LINK, (event) => {
      if (event.type === 'rtc-signal') other.postMessage(event);
      if (event.type === 'rtc-opened') {
        const messages = Array.from({ length: MESSAGES }, (_, n) => {
          const bytes = new Uint8Array(4096);
          new DataView(bytes.buffer).setUint32(0, n);
          return bytes.buffer;
        });
        end.port.postMessage({ type: 'rtc-send', link: LINK, messages }, messages);
      }
      if (event.type === 'rtc-buffered') told.push(event.amount);
      if (event.type === 'rtc-received') {
        received[side].push(new DataView(event.message).getUint32(0));
        if (received.every((each) => each.length === MESSAGES))
          ends[0].port.postMessage({ type: 'rtc-close', link: LINK });
      }
      if (event.type === 'rtc-closed') {
        end.reason = event.reason;
        if (ends.every((each) => each.reason)) {
          const text = JSON.stringify({ received, told, reasons: ends.map((each) => each.reason) });
          reply('done', { value: { ...outcome({}, 0), text } });
        }
      }
    });
    end.port.postMessage({ type: 'rtc-open', link: LINK, initiator: side === 0, iceServers: [] });
  });
}

function lonely(page, reply) {
  page.links.set(1, (event) => {
    if (event.type === 'rtc-signal' && event.signal.kind === 'offer') {
      const signal = { kind: 'answer', sdp: 'not an sdp', mid: '', line: 0 };
      page.port.postMessage({ type: 'rtc-signal', link: 1, signal });
    }
    if (event.type === 'rtc-closed') reply('done', { value: { ...outcome({}, 0), text: event.reason } });
  });
  page.port.postMessage({ type: 'rtc-open', link: 1, initiator: true, iceServers: [] });
}
