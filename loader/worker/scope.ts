/** The worker's own global, whichever of the two kinds it is. */

import type { Hosting } from '../protocol';

declare const self: WorkerGlobalScope & typeof globalThis;

/** Random for every start of a worker: who sees another one knows that the former is dead. */
export const bootId = crypto.randomUUID();

export const startedAt = performance.now();

export const serviceWorker: ServiceWorkerGlobalScope | null =
  typeof ServiceWorkerGlobalScope !== 'undefined' &&
  (self as unknown) instanceof ServiceWorkerGlobalScope
    ? (self as unknown as ServiceWorkerGlobalScope)
    : null;

export const hosting: Hosting = serviceWorker ? 'service-worker' : 'dedicated-worker';

/** The folder of runtime files: beside this script, or on the CDN when it came as a blob. */
export function runtimeFolder(cdn: string): string {
  const script = import.meta.url;
  return new URL('runtime/', script.startsWith('blob:') ? `${cdn}/` : script).href;
}
