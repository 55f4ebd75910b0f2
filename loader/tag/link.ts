/**
 * The tag's end of the port into the hidden frame.
 *
 * A call outlives the worker that answers it: when the frame says WorkerLost it is asked again,
 * with parameters made anew, so that a running answer goes on from the last token received.
 */

import type {
  Attach,
  Call,
  ErrorData,
  FrameToPage,
  Json,
  Notice,
  PageToFrame,
  TagConfig,
} from '../protocol';
import { PROTOCOL_VERSION } from '../protocol';
import { KwaaiNetError } from './errors';

/** From inserting the frame to its first word. */
const FRAME_MS = 20_000;
/** For each step of a goodbye; a frame that does not answer is removed all the same. */
const GOODBYE_MS = 3000;
/** Restarts in a row that one call survives without getting any further. */
const RESTARTS = 5;

interface Pending {
  method: string;
  params: () => Json;
  chunk: ((value: Json) => void) | undefined;
  resolve: (value: Json) => void;
  reject: (error: KwaaiNetError) => void;
  lost: number;
}

export interface Running {
  done: Promise<Json>;
  /** Stop caring, and tell the node to stop too. `done` then never settles. */
  cancel(): void;
}

export class Link {
  readonly #frame = document.createElement('iframe');
  readonly #port: MessagePort;
  readonly #calls = new Map<number, Pending>();
  readonly #timer: ReturnType<typeof setTimeout>;
  #nextId = 1;
  #closed = false;
  #detached: (() => void) | undefined;
  readonly #config: TagConfig;
  readonly #notice: (notice: Notice) => void;

  constructor(config: TagConfig, notice: (notice: Notice) => void) {
    this.#config = config;
    this.#notice = notice;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }: MessageEvent<FrameToPage>) => this.#receive(data);
    this.#timer = setTimeout(() => this.#unreachable(), FRAME_MS);

    const frame = this.#frame;
    frame.src = `${config.cdn}/frame.html`;
    frame.inert = true; // nothing in it to see, reach or read aloud
    // Not display:none: browsers slow such frames down.
    frame.style.cssText = 'position:fixed;width:1px;height:1px;border:0;opacity:0';
    frame.onload = () => {
      frame.onload = null;
      const attach: Attach = { type: 'kwaainet-attach', version: PROTOCOL_VERSION, config };
      frame.contentWindow?.postMessage(attach, config.cdn, [port2]);
    };
    document.body.append(frame);
  }

  call(method: string, params: Json | (() => Json), chunk?: (value: Json) => void): Running {
    let pending: Pending | undefined;
    const done = new Promise<Json>((resolve, reject) => {
      const make = typeof params === 'function' ? params : () => params;
      pending = { method, params: make, chunk, resolve, reject, lost: 0 };
      if (this.#closed) reject(gone());
      else this.#send(pending);
    });
    return {
      done,
      cancel: () => {
        for (const [id, each] of this.#calls) {
          if (each !== pending) continue;
          this.#calls.delete(id);
          this.#post({ type: 'call', id: this.#nextId++, method: 'cancel', params: { call: id } });
        }
      },
    };
  }

  /**
   * Let go of the frame. With `stop` the node ends for all tabs of the site, not for this one only;
   * with `forget` what it stored is deleted too.
   */
  async close(stop: boolean, forget = false): Promise<void> {
    if (this.#closed) return;
    const stopped = stop && this.call('stop', { forget }).done.catch(() => {});
    this.#closed = true;
    this.#fail(gone(), 'stop');
    const detached = new Promise<void>((resolve) => (this.#detached = resolve));
    await Promise.race([stopped, wait(GOODBYE_MS)]);
    this.#post({ type: 'detach', forget });
    await Promise.race([detached, wait(GOODBYE_MS)]);
    this.#remove();
  }

  #send(pending: Pending): void {
    const call: Call = {
      type: 'call',
      id: this.#nextId++,
      method: pending.method,
      params: pending.params(),
    };
    this.#calls.set(call.id, pending);
    this.#post(call);
  }

  #post(message: PageToFrame): void {
    this.#port.postMessage(message);
  }

  #receive(message: FrameToPage): void {
    clearTimeout(this.#timer);
    if (message.type === 'detached') {
      this.#detached?.();
      return;
    }
    if (message.type === 'notice') {
      if (message.event === 'route') {
        const { call, route } = message.value;
        this.#calls.get(call)?.chunk?.({ text: '', ids: [], route });
      } else this.#notice(message);
      if (message.event === 'failed') this.#fail(KwaaiNetError.from(message.value));
      return;
    }
    const pending = this.#calls.get(message.id);
    if (!pending) return; // cancelled
    if (message.event === 'chunk') {
      pending.lost = 0;
      pending.chunk?.(message.value);
      return;
    }
    this.#calls.delete(message.id);
    if (message.event !== 'error') pending.resolve(message.value);
    else if (message.error.code === 'WorkerLost' && !this.#closed && ++pending.lost <= RESTARTS)
      this.#send(pending);
    else pending.reject(KwaaiNetError.from(message.error));
  }

  #unreachable(): void {
    const { cdn } = this.#config;
    const value: ErrorData = {
      code: 'Unreachable',
      message: `${cdn}/frame.html does not answer. Is the relay up, and does this page's Content-Security-Policy allow "frame-src ${cdn}"?`,
    };
    this.#closed = true;
    this.#remove();
    this.#receive({ type: 'notice', event: 'failed', value });
  }

  #fail(error: KwaaiNetError, except?: string): void {
    for (const [id, pending] of this.#calls) {
      if (pending.method === except) continue;
      this.#calls.delete(id);
      pending.reject(error);
    }
  }

  #remove(): void {
    clearTimeout(this.#timer);
    this.#port.close();
    this.#frame.remove();
  }
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export function gone(): KwaaiNetError {
  return new KwaaiNetError('NotRunning', 'The node was stopped; KwaaiNet.start() starts it');
}
