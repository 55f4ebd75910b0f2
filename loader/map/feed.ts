/**
 * Follows the map: by WebSocket, and by asking again where there is none to be had.
 *
 * A lost feed is tried again after a second, then after twice as long each time, up to half a
 * minute, never at the moment at which all others do. A page that nobody looks at lets go.
 */

import type { Message } from './protocol';

export type State = 'connecting' | 'live' | 'asking' | 'lost' | 'resting';

const SHORTEST_MS = 1_000;
const LONGEST_MS = 30_000;
/** How often the map is asked for while the relay gives no feed. */
const ASK_MS = 10_000;
/** Signs of life come every 15 s; without one for so long the connection is dead. */
const SILENCE_MS = 40_000;
/** A hidden page keeps its feed so long. */
const HIDDEN_MS = 60_000;

export class Feed {
  #socket: WebSocket | undefined;
  #failures = 0;
  #etag = '';
  #retry: number | undefined;
  #silence: number | undefined;
  #hidden: number | undefined;

  constructor(
    private readonly take: (message: Message) => void,
    /** `again` is when the next try is due, in ms of `Date.now()`. */
    private readonly say: (state: State, again: number) => void,
  ) {
    document.addEventListener('visibilitychange', () => this.#seen());
    window.addEventListener('online', () => this.#now());
    this.#connect();
  }

  #connect(): void {
    const url = new URL('map/feed', location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#listen();
    socket.onmessage = ({ data }) => {
      this.#listen();
      this.#failures = 0;
      this.#etag = '';
      this.say('live', 0);
      this.take(JSON.parse(data as string) as Message);
    };
    socket.onclose = () => {
      if (socket === this.#socket) void this.#lost();
    };
  }

  #listen(): void {
    clearTimeout(this.#silence);
    this.#silence = window.setTimeout(() => void this.#lost(), SILENCE_MS);
  }

  #drop(): void {
    clearTimeout(this.#silence);
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
  }

  async #lost(): Promise<void> {
    this.#drop();
    this.#failures += 1;
    // Once may be a restart. Twice: the feed is full, or a proxy passes no WebSockets on.
    const asked = this.#failures > 1 && (await this.#ask());
    if (this.#socket) return; // somebody came back to the page meanwhile
    const longest = Math.min(LONGEST_MS, SHORTEST_MS * 2 ** (this.#failures - 1));
    const wait = asked ? ASK_MS : longest * (0.5 + Math.random() / 2);
    this.#retry = window.setTimeout(() => this.#connect(), wait);
    this.say(asked ? 'asking' : 'lost', Date.now() + wait);
  }

  /** Whether the relay answers without a feed. */
  async #ask(): Promise<boolean> {
    try {
      const headers: HeadersInit = this.#etag ? { 'If-None-Match': this.#etag } : {};
      const answer = await fetch('map.json', { headers, cache: 'no-store' });
      if (answer.status === 304) return true;
      if (!answer.ok) return false;
      const map = await answer.json();
      this.#etag = answer.headers.get('ETag') ?? '';
      if (!this.#socket) this.take({ type: 'map', ...map });
      return true;
    } catch {
      return false; // the relay is away
    }
  }

  #now(): void {
    if (this.#socket) return;
    clearTimeout(this.#retry);
    this.#failures = 0;
    this.say('connecting', 0);
    this.#connect();
  }

  #seen(): void {
    clearTimeout(this.#hidden);
    if (!document.hidden) {
      this.#now();
      return;
    }
    this.#hidden = window.setTimeout(() => {
      this.#drop();
      this.say('resting', 0);
    }, HIDDEN_MS);
  }
}
