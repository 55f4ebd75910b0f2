import type { ErrorData, Hosting, Json } from '../protocol';
import type { Status } from './status';

export interface Events {
  progress: { stage: string; text: string; share: number | null };
  status: Status;
  worker: { hosting: Hosting; boot: string; fromSnapshot: boolean; ms: number };
  failed: ErrorData;
  consent: ConsentState;
}

/** `unasked`: no answer yet, or "not now"; `asking`: the dialogue is open. */
export type ConsentState = 'unasked' | 'asking' | 'granted' | 'denied';

type Listener = (value: Json) => void;

/** Scripts load in any order: a listener that comes late is told the latest value of its event. */
export class Emitter {
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #latest = new Map<string, Json>();

  readonly on = <E extends keyof Events>(
    event: E,
    listener: (value: Events[E]) => void,
  ): (() => void) => {
    const set = this.#listeners.get(event) ?? new Set();
    const each = listener as unknown as Listener;
    this.#listeners.set(event, set.add(each));
    const value = this.#latest.get(event);
    if (value !== undefined) queueMicrotask(() => set.has(each) && each(value));
    return () => void set.delete(each);
  };

  emit<E extends keyof Events>(event: E, value: Events[E]): void {
    this.#latest.set(event, value as unknown as Json);
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        listener(value as unknown as Json);
      } catch (error) {
        reportError(error); // a page's bug must not stop the node
      }
    }
  }

  /** What was true of a node that has gone is not told to later listeners. */
  forget(...events: (keyof Events)[]): void {
    for (const event of events) this.#latest.delete(event);
  }
}
