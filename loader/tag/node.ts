/** Brings consent, frame, meter and events together: one node, as this page sees it. */

import type { Json, Notice } from '../protocol';
import type { Settings } from './config';
import {
  type Answer,
  judge,
  privacyControl,
  readAnswer,
  watchAnswer,
  writeAnswer,
} from './consent';
import { type Dialogue, openDialogue } from './dialogue';
import { KwaaiNetError } from './errors';
import { type ConsentState, Emitter } from './events';
import { gone, Link } from './link';
import { Meter } from './meter';
import { lower, type Resources } from './resources';
import type { Status } from './status';

export class Node {
  readonly events = new Emitter();
  state: ConsentState;
  readonly ready: Promise<void>;
  #becomeReady!: () => void;
  #failReady!: (error: KwaaiNetError) => void;
  #answer: Answer | null = null;
  #asking: Promise<ConsentState> | null = null;
  #dialogue: Dialogue | null = null;
  #link: Link | null = null;
  #meter: Meter | null = null;
  readonly #settings!: Settings;
  readonly #broken: KwaaiNetError | undefined;

  /** With an error instead of settings: the same API, where every road says what is wrong. */
  constructor(settings: Settings | KwaaiNetError) {
    this.ready = new Promise((resolve, reject) => {
      this.#becomeReady = resolve;
      this.#failReady = reject;
    });
    this.ready.catch(() => {}); // a page that does not look is not bothered
    if (settings instanceof KwaaiNetError) {
      this.state = 'denied';
      this.#broken = settings;
      this.#failReady(settings);
      this.events.emit('failed', settings);
      return;
    }
    this.#settings = settings;
    this.#answer = readAnswer();
    this.state = judge(this.#answer, settings.resources);
    watchAnswer(() => this.#answeredElsewhere());
    addEventListener('pageshow', ({ persisted }) => {
      if (!persisted || !this.#link) return; // back from the page cache: the frame had to let go
      void this.#link.close(false);
      this.#link = null;
      this.#open();
    });
  }

  /** Needs the page's body. */
  begin(): void {
    this.#turn(this.state);
    if (this.state === 'granted') this.#resume();
    else if (this.state === 'unasked' && this.#settings.consent === 'ask') void this.ask();
  }

  /** A remembered no, or Global Privacy Control, is only asked about again on a visitor's click. */
  async ask(byPage = false): Promise<ConsentState> {
    if (this.state === 'granted') return this.state;
    if (
      this.#broken ||
      (byPage && this.state === 'denied' && navigator.userActivation?.isActive === false)
    ) {
      throw this.#refusal();
    }
    this.#asking ??= this.#askOnce().finally(() => (this.#asking = null));
    return this.#asking;
  }

  async withdraw(): Promise<void> {
    if (this.#broken) throw this.#broken;
    this.#keep(this.#newAnswer(false));
    this.#turn('denied');
    await this.#shut(true, true);
    this.#hideMeter();
  }

  async stop(): Promise<void> {
    if (this.#answer) this.#keep({ ...this.#answer, paused: true });
    this.#meter?.say('stopped', false);
    await this.#shut(true);
  }

  async start(): Promise<void> {
    if (this.state !== 'granted') throw this.#refusal();
    if (this.#answer) this.#keep({ ...this.#answer, paused: false });
    this.#open();
  }

  async limits(limits: Partial<Resources>): Promise<Json> {
    if (this.state !== 'granted' || !this.#answer) throw this.#refusal();
    const lowered = lower(limits, this.#settings.resources);
    this.#keep({ ...this.#answer, limits: { ...this.#answer.limits, ...lowered } });
    return (await this.#link?.call('limits', lowered as Json).done) ?? null;
  }

  async status(): Promise<Status> {
    return (await (await this.acquire()).call('status', {}).done) as unknown as Status;
  }

  async acquire(): Promise<Link> {
    if (!this.#link) throw this.#refusal();
    return this.#link;
  }

  async #askOnce(): Promise<ConsentState> {
    const before = this.state;
    this.#turn('asking');
    this.#dialogue = openDialogue(location.hostname || 'this page', this.#settings.resources);
    const yes = await this.#dialogue.answer;
    this.#dialogue = null;
    if (yes === null) {
      if (this.state === 'asking') this.#turn(before); // not now: nothing is stored
      return this.state;
    }
    this.#keep(this.#newAnswer(yes));
    this.#turn(yes ? 'granted' : 'denied');
    if (yes) this.#open();
    return this.state;
  }

  #resume(): void {
    if (this.#answer?.paused) this.#showMeter()?.say('stopped', false);
    else this.#open();
  }

  #open(): void {
    if (this.#link) return;
    this.#showMeter()?.say('starting', true);
    const link = new Link(this.#settings.config, (notice) => {
      if (link === this.#link) this.#take(notice); // one that says goodbye has no news
    });
    this.#link = link;
  }

  async #shut(stop: boolean, forget = false): Promise<void> {
    const link = this.#link;
    this.#link = null;
    this.events.forget();
    await link?.close(stop, forget);
  }

  #take(notice: Notice): void {
    const { events } = this;
    const meter = this.#meter;
    const link = this.#link;
    switch (notice.event) {
      case 'progress':
        meter?.progress(notice.value.text, notice.value.share);
        events.emit('progress', notice.value);
        break;
      case 'status': {
        const status = notice.value as unknown as Status;
        meter?.show(status);
        events.emit('status', status);
        break;
      }
      case 'worker':
        // A new worker knows the site's caps, not what the visitor turned down since.
        if (this.#answer?.limits)
          link?.call('limits', this.#answer.limits as Json).done.catch(() => {});
        this.#becomeReady();
        events.emit('worker', notice.value);
        break;
      case 'failed':
        this.#link = null;
        void link?.close(false);
        meter?.fail(notice.value.message);
        this.#failReady(KwaaiNetError.from(notice.value));
        events.emit('failed', notice.value);
        break;
    }
  }

  #answeredElsewhere(): void {
    this.#answer = readAnswer();
    const state = judge(this.#answer, this.#settings.resources);
    if (state !== this.state && (state !== 'unasked' || this.state !== 'asking')) this.#turn(state);
    if (this.state !== 'asking') this.#dialogue?.close();
    if (this.state === 'granted' && !this.#answer?.paused) {
      this.#open();
      return;
    }
    void this.#shut(false);
    if (this.state === 'granted') this.#meter?.say('stopped', false);
    else this.#hideMeter();
  }

  #showMeter(): Meter | null {
    const { meter: side } = this.#settings;
    if (side !== 'none') {
      this.#meter ??= new Meter(side, {
        stop: () => void this.stop(),
        start: () => void this.start().catch(() => {}),
        remove: () => void this.withdraw(),
      });
    }
    return this.#meter;
  }

  #hideMeter(): void {
    this.#meter?.remove();
    this.#meter = null;
  }

  #newAnswer(yes: boolean): Answer {
    return { yes, resources: this.#settings.resources, gpc: privacyControl() };
  }

  #keep(answer: Answer): void {
    this.#answer = answer;
    writeAnswer(answer);
  }

  #turn(state: ConsentState): void {
    this.state = state;
    this.events.emit('consent', state);
  }

  #refusal(): KwaaiNetError {
    if (this.#broken) return this.#broken;
    return this.state === 'granted'
      ? gone()
      : new KwaaiNetError(
          'ConsentRequired',
          'The visitor has not said yes; KwaaiNet.consent.ask() asks, from a click',
        );
  }
}
