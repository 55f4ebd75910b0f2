/**
 * The one line on a site: `<script src="https://…/sovereign-ai.js" data-…></script>`.
 *
 * Reads its own element, asks the visitor, and offers `window.KwaaiNet`. Nothing else is fetched
 * and nothing stored before a yes. Whatever goes wrong here, the page goes on.
 */

import { endpoints } from './completions';
import { readSettings } from './config';
import { KwaaiNetError } from './errors';
import { Meter } from './meter';
import { Node } from './node';
import type { Resources } from './resources';

function expose(node: Node) {
  return {
    /** Settles once: when the node first runs in this tab, or cannot; pending before a yes. */
    ready: node.ready,
    consent: {
      get state() {
        return node.state;
      },
      ask: () => node.ask(true),
      withdraw: () => node.withdraw(),
    },
    status: () => node.status(),
    on: node.events.on,
    ...endpoints(() => node.acquire()),
    limits: (limits: Partial<Resources>) => node.limits(limits),
    stop: () => node.stop(),
    start: () => node.start(),
  };
}

export type KwaaiNetApi = ReturnType<typeof expose>;

function whenBody(run: () => void): void {
  if (document.body) run();
  else addEventListener('DOMContentLoaded', run, { once: true });
}

function main(element: HTMLScriptElement): KwaaiNetApi {
  try {
    const node = new Node(readSettings(element));
    whenBody(() => node.begin());
    return expose(node);
  } catch (error) {
    const reason =
      error instanceof KwaaiNetError ? error : new KwaaiNetError('ConfigError', String(error));
    console.error(`KwaaiNet did not start. ${reason.message}`, element);
    if (element.dataset.meter !== 'none')
      whenBody(() => new Meter('right', null).fail(reason.message));
    return expose(new Node(reason));
  }
}

declare global {
  interface Window {
    KwaaiNet?: KwaaiNetApi;
  }
}

// Null for module scripts; then the element is found by what it loads.
const element =
  (document.currentScript as HTMLScriptElement | null) ??
  document.querySelector<HTMLScriptElement>('script[src*="sovereign-ai.js"]');
if (window.KwaaiNet) console.warn('KwaaiNet is on this page twice');
else if (element?.src) window.KwaaiNet = main(element);
else console.error('KwaaiNet did not start: it finds no script element of its own');
