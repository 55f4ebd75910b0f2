/**
 * Keeps one worker running for one page: finds a host, boots the worker, asks whether it lives,
 * boots it again when it died, and gives up aloud.
 *
 * A worker is known by its boot id. A busy worker answers late and that is fine; a service worker
 * that was killed is woken by the very heartbeat that asks and answers with a new id. Only long
 * silence counts as death without an answer: a synchronous load can hold a healthy worker for
 * tens of seconds.
 */

import type {
  Boot,
  Call,
  Detached,
  ErrorData,
  FrameToPage,
  FrameToWorker,
  Notice,
  PageToFrame,
  TagConfig,
  WorkerToFrame,
} from '../protocol';
import { PROTOCOL_VERSION } from '../protocol';
import { within } from './deadline';
import { type Host, strategies } from './hosting';
import { PeerLinks } from './peer_links';
import { clearStorage } from './storage';
import { startTicker } from './ticker';

const WORKER_SCRIPT = '/worker.js';
/** The script answers before it loads anything; this is for compiling it on a slow phone. */
const ALIVE_MS = 20_000;
/** Ticks without any answer that count as death. Ticks, not time: a laptop may have slept. */
const SILENT_TICKS = 60;
/** So many deaths within so long, and this way of hosting is given up. */
const DEATHS_ALLOWED = 5;
const DEATHS_WINDOW_MS = 180_000;
const BACKOFF_MS = [0, 1000, 2000, 4000];

export class Supervisor {
  private host: Host | null = null;
  private port: MessagePort | null = null;
  private boot = '';
  /** Calls not sent yet: there is no worker at the moment. */
  private waiting: Call[] = [];
  /** Calls sent and not answered. */
  private readonly pending = new Set<number>();
  private deaths: number[] = [];
  private silent = 0;
  private starting = false;
  private over = false;
  private readonly strategies = [...strategies];
  private readonly reasons: string[] = [];
  private readonly links = new PeerLinks((event, transfer = []) => this.toWorker(event, transfer));
  private readonly stopTicker: () => void;

  constructor(
    private readonly config: TagConfig,
    private readonly page: MessagePort,
  ) {
    this.stopTicker = startTicker('/frame.js', () => this.tick());
    page.onmessage = ({ data }: MessageEvent<PageToFrame>) => this.fromPage(data);
    addEventListener('pagehide', () => this.leave());
  }

  /** Until a worker lives or every way of hosting has failed. */
  async start(): Promise<void> {
    this.starting = true;
    this.progress('Starting the node');
    while (!this.over && !(await this.startOnce()));
    this.starting = false;
  }

  /** True when a worker lives, or nothing is left to try. */
  private async startOnce(): Promise<boolean> {
    try {
      if (!this.host) {
        const strategy = this.strategies[0];
        if (!strategy) return this.fail();
        this.host = await strategy(WORKER_SCRIPT);
      }
      await this.bootWorker(this.host);
      return true;
    } catch (error) {
      this.reasons.push(String(error));
      this.nextStrategy();
      return false;
    }
  }

  private async bootWorker(host: Host): Promise<void> {
    const { port1, port2 } = new MessageChannel();
    const alive = new Promise<string>((resolve) => {
      port1.onmessage = ({ data }: MessageEvent<WorkerToFrame>) => {
        if (data.type === 'alive') resolve(data.boot);
        this.fromWorker(data);
      };
    });
    this.boot = '';
    this.port = port1;
    const { config } = this;
    const message: Boot = {
      type: 'boot',
      version: PROTOCOL_VERSION,
      config,
      hosting: host.hosting,
    };
    host.boot(message, port2);
    for (const call of this.waiting.splice(0)) this.sendCall(call);
    const first = host.broken ? Promise.race([alive, host.broken]) : alive;
    this.boot = await within(ALIVE_MS, `a ${host.hosting}`, first);
    this.silent = 0;
  }

  private tick(): void {
    const { host, port } = this;
    if (this.starting || this.over || !host || !port) return;
    if (++this.silent > SILENT_TICKS) return void this.revive('it fell silent');
    // Every second: others wait for what a dead worker was computing.
    host.probe(port, (data) => this.fromWorker(data as WorkerToFrame));
  }

  private heard(boot: string): void {
    this.silent = 0;
    // Before the first Alive of a boot, older answers may still be on their way.
    if (!this.starting && this.boot && boot !== this.boot) void this.revive('it was restarted');
  }

  /** The worker died: fail what it was doing, wait a little if it dies often, boot it again. */
  private async revive(reason: string): Promise<void> {
    if (this.starting || this.over) return;
    this.starting = true;
    this.reasons.push(reason);
    this.abandon('The node was restarted');
    if (this.host && !this.host.revives) {
      this.host.end();
      this.host = null;
    }
    const now = performance.now();
    this.deaths = [...this.deaths.filter((then) => now - then < DEATHS_WINDOW_MS), now];
    if (this.deaths.length > DEATHS_ALLOWED) this.nextStrategy();
    else
      await new Promise((resolve) =>
        setTimeout(resolve, BACKOFF_MS[this.deaths.length - 1] ?? 4000),
      );
    await this.start();
  }

  private nextStrategy(): void {
    this.abandon('The node could not be started here');
    this.host?.end();
    this.host = null;
    this.strategies.shift();
    this.deaths = [];
  }

  private fail(): true {
    const message =
      'The node cannot run in this browser as it is set up: neither a service worker nor a worker stays up. ' +
      'Allow storage for this site or try another browser.';
    this.tell({
      type: 'notice',
      event: 'failed',
      value: { code: 'EngineError', message, data: this.reasons.slice(-8) },
    });
    this.leave();
    return true;
  }

  private fromPage(message: PageToFrame): void {
    if (message?.type === 'detach') void this.detach(message.forget);
    if (message?.type !== 'call' || typeof message.id !== 'number') return;
    if (this.port) this.sendCall(message);
    else this.waiting.push(message);
  }

  private fromWorker(message: WorkerToFrame): void {
    switch (message?.type) {
      case 'alive':
        this.heard(message.boot);
        break;
      case 'reply':
        if (message.event !== 'chunk') this.pending.delete(message.id);
        this.tell(message);
        break;
      case 'notice':
        this.tell(message);
        break;
      case 'rtc-open':
      case 'rtc-signal':
      case 'rtc-send':
      case 'rtc-close':
        this.links.execute(message);
        break;
    }
  }

  private sendCall(call: Call): void {
    this.pending.add(call.id);
    this.toWorker(call);
  }

  /** Drop the connection to a worker; whatever it owed is answered with WorkerLost. */
  private abandon(message: string): void {
    this.port?.close();
    this.port = null;
    this.links.closeAll(message);
    const error: ErrorData = { code: 'WorkerLost', message };
    for (const id of this.pending) this.tell({ type: 'reply', id, event: 'error', error });
    this.pending.clear();
  }

  private leave(): void {
    if (this.over) return;
    this.over = true;
    this.stopTicker();
    this.toWorker({ type: 'leave' });
    this.abandon('The page left');
    for (const { id } of this.waiting.splice(0)) {
      this.tell({
        type: 'reply',
        id,
        event: 'error',
        error: { code: 'WorkerLost', message: 'The page left' },
      });
    }
  }

  private async detach(forget: boolean): Promise<void> {
    const { host } = this;
    this.leave();
    if (forget) {
      await host?.forget().catch(() => {}); // never registered: nothing to undo
      await clearStorage();
    } else host?.end();
    this.tell({ type: 'detached' });
  }

  private progress(text: string): void {
    const notice: Notice = {
      type: 'notice',
      event: 'progress',
      value: { stage: 'worker', text, share: null },
    };
    this.tell(notice);
  }

  private tell(message: FrameToPage | Detached): void {
    this.page.postMessage(message);
  }

  private toWorker(message: FrameToWorker, transfer: Transferable[] = []): void {
    this.port?.postMessage(message, transfer);
  }
}
