/**
 * Where the worker can live, best first. Whether a browser, its settings and the site's policies
 * allow a mode is found out by trying, each step with a deadline: there is no reliable question
 * to ask beforehand.
 */

import type { Boot, Heartbeat, Hosting, Probe } from '../protocol';
import { within } from './deadline';

/** A slow phone on a slow line still has to fetch the script in this time. */
const REGISTER_MS = 30_000;
const ACTIVATE_MS = 15_000;

export interface Host {
  readonly hosting: Hosting;
  boot(message: Boot, port: MessagePort): void;
  /** Rejects when the script cannot even be loaded; service workers tell that when registered. */
  readonly broken?: Promise<never>;
  /** Ask for Alive, which comes to `alive`. `port` is the one that was booted with. */
  probe(port: MessagePort, alive: (data: unknown) => void): void;
  /** Whether the same host can be booted again after its worker died. */
  readonly revives: boolean;
  /** Let go; nobody will talk to the worker any more. */
  end(): void;
  /** As `end`, and undo what hosting left behind in the browser. */
  forget(): Promise<unknown>;
}

export type Strategy = (script: string) => Promise<Host>;

const inServiceWorker: Strategy = async (script) => {
  // Throws in sandboxed frames, is undefined in insecure contexts, rejects where storage is denied.
  const registration = await within(
    REGISTER_MS,
    'registering the service worker',
    navigator.serviceWorker.register(script, { scope: '/' }),
  );
  await within(ACTIVATE_MS, 'activating the service worker', activated(registration));
  const post = (message: Boot | Heartbeat, port: MessagePort): void => {
    // Read anew each time: an update replaces the worker under the registration.
    registration.active?.postMessage(message, [port]);
  };
  return {
    hosting: 'service-worker',
    revives: true,
    boot: post,
    probe: (_port, alive) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = (event) => {
        port1.close();
        alive(event.data);
      };
      post({ type: 'heartbeat' }, port2);
    },
    end: () => {}, // other tabs of the site may share it; without heartbeats it ends by itself
    forget: () => registration.unregister(),
  };
};

const inDedicatedWorker: Strategy = async (script) => {
  const worker = new Worker(script, { name: 'kwaainet-node' });
  const probe: Probe = { type: 'probe' };
  const broken = new Promise<never>((_resolve, reject) => {
    worker.onerror = ({ message }) => reject(new Error(message || `${script} does not load`));
  });
  broken.catch(() => {}); // an error in a running worker is its own affair
  return {
    hosting: 'dedicated-worker',
    revives: false,
    broken,
    boot: (message, port) => worker.postMessage(message, [port]),
    probe: (port) => port.postMessage(probe), // Alive comes back by the same port
    end: () => worker.terminate(),
    forget: async () => worker.terminate(),
  };
};

export const strategies: readonly Strategy[] = [inServiceWorker, inDedicatedWorker];

/** A worker that waits behind an older one takes over at the next start, as browsers do it. */
async function activated(registration: ServiceWorkerRegistration): Promise<void> {
  const worker = registration.installing ?? registration.waiting;
  if (registration.active || !worker) return;
  await new Promise<void>((resolve, reject) => {
    worker.onstatechange = () => {
      if (worker.state === 'activated') resolve();
      if (worker.state === 'redundant') reject(new Error('the service worker did not install'));
    };
  });
}
