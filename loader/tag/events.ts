import type { ErrorData, Hosting } from '../protocol';
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

/** Scripts load in any order: a listener that comes late is told the latest value of its event. */
export class Emitter {
  readonly #target = new EventTarget(); // one listener's bug is reported and stops nobody else
  readonly #latest = new Map<string, unknown>();

  readonly on = <E extends keyof Events>(
    event: E,
    listener: (value: Events[E]) => void,
  ): (() => void) => {
    const heard = (told: Event): void => listener((told as CustomEvent<Events[E]>).detail);
    this.#target.addEventListener(event, heard);
    const value = this.#latest.get(event) as Events[E] | undefined;
    if (value !== undefined) queueMicrotask(() => listener(value));
    return () => this.#target.removeEventListener(event, heard);
  };

  emit<E extends keyof Events>(event: E, detail: Events[E]): void {
    this.#latest.set(event, detail);
    this.#target.dispatchEvent(new CustomEvent(event, { detail }));
  }

  /** What was true of a node that has gone is not told to later listeners. */
  forget(): void {
    this.#latest.clear();
  }
}
