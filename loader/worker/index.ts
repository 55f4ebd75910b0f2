/**
 * The worker that hosts the node; one classic script for service workers and dedicated ones.
 *
 * It answers at once and loads nothing before a Boot: a service worker that is merely woken by a
 * heartbeat stays small. Every start has a new boot id, by which frames notice a restart.
 */

import type { Alive, Boot, FrameToWorker, Heartbeat } from '../protocol';
import { PROTOCOL_VERSION } from '../protocol';
import type { Frame } from './frames';
import { Node } from './node';
import { bootId, serviceWorker } from './scope';

declare const self: WorkerGlobalScope & typeof globalThis;

const ALIVE: Alive = { type: 'alive', boot: bootId };

const node = new Node();
const { frames } = node.switchboard;

if (serviceWorker) {
  const scope = serviceWorker;
  scope.addEventListener('install', () => void scope.skipWaiting());
  scope.addEventListener('activate', (event) => event.waitUntil(scope.clients.claim()));
  scope.addEventListener('message', (event) => {
    const client = event.source instanceof Client ? event.source.id : null;
    // Browsers deliver only from the same origin; an exotic one had better be refused.
    if (event.origin !== scope.location.origin) return;
    const work = heard(event.data as Boot | Heartbeat, event.ports[0], client);
    if (work) event.waitUntil(work);
  });
} else {
  self.addEventListener('message', (event) => {
    const { data, ports } = event as MessageEvent<Boot | Heartbeat>;
    void heard(data, ports[0], null);
  });
}

/** What a frame sends to the worker itself; returns what has to be waited for. */
function heard(
  message: Boot | Heartbeat,
  port: MessagePort | undefined,
  client: string | null,
): Promise<unknown> | undefined {
  switch (message?.type) {
    case 'heartbeat':
      port?.postMessage(ALIVE);
      return serviceWorker ? frames.sweep(serviceWorker.clients) : undefined;
    case 'boot':
      return port && boot(message, port, client);
    default:
      return undefined;
  }
}

function boot(message: Boot, port: MessagePort, client: string | null): Promise<void> | undefined {
  port.postMessage(ALIVE);
  if (message.version !== PROTOCOL_VERSION) {
    const text = 'the page and the node are of different versions: reload the page';
    const value = { code: 'ProtocolError', message: text };
    port.postMessage({ type: 'notice', event: 'failed', value });
    return undefined;
  }
  const frame = frames.add(port, client);
  frame.listen(
    (data) => fromFrame(frame, data),
    () => frames.remove(frame),
  );
  node.switchboard.retry();
  node.switchboard.welcome(frame);
  return node.boot(message);
}

function fromFrame(frame: Frame, message: FrameToWorker): void {
  switch (message?.type) {
    case 'call':
      return node.switchboard.call(frame, message);
    case 'probe':
      return frame.send(ALIVE);
    case 'leave':
      return frames.remove(frame);
    case 'rtc-signal':
    case 'rtc-opened':
    case 'rtc-received':
    case 'rtc-buffered':
    case 'rtc-closed':
      return node.peers.hear(frame, message);
  }
}
