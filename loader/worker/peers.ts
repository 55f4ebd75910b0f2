/**
 * Peer connections, seen from the worker. A frame owns them (workers have no RTCPeerConnection):
 * the oldest one that is there. When it goes away its links close, and new ones go to the next.
 */

import type { IceServer, RtcCommand, RtcEvent, RtcSignal } from '../protocol';
import { bytesOf, type PythonBytes } from './buffers';
import { NodeError } from './errors';
import type { Frame, Frames } from './frames';

const LOW_WATER = 256 * 1024;

export interface LinkEvents {
  signal(kind: string, sdp: string, mid: string, line: number): void;
  opened(): void;
  routed(route: string): void;
  received(message: ArrayBuffer): void;
  closed(reason: string): void;
}

export class PeerLink {
  /** What the frame said its channel holds, and what has been sent since. */
  private reported = 0;
  private readonly unreported: number[] = [];
  private outbox: ArrayBuffer[] = [];
  private waiting = 0;
  private draining: (() => void)[] = [];
  private open = true;

  constructor(
    private readonly number: number,
    readonly frame: Frame,
    private readonly events: LinkEvents,
    private readonly forget: () => void,
  ) {}

  buffered(): number {
    return this.unreported.reduce((sum, size) => sum + size, this.reported + this.waiting);
  }

  signal(kind: RtcSignal['kind'], sdp: string, mid: string, line: number): void {
    this.command({ type: 'rtc-signal', link: this.number, signal: { kind, sdp, mid, line } });
  }

  /** Messages of one turn of the event loop travel to the frame together. */
  send(data: PythonBytes): void {
    if (!this.open) return;
    const message = bytesOf(data).buffer;
    this.waiting += message.byteLength;
    if (this.outbox.push(message) === 1) queueMicrotask(() => this.flush());
  }

  drain(): Promise<void> {
    if (!this.open || this.buffered() < LOW_WATER) return Promise.resolve();
    return new Promise((resolve) => this.draining.push(resolve));
  }

  close(reason = 'closed here'): void {
    if (!this.open) return;
    this.flush();
    this.command({ type: 'rtc-close', link: this.number });
    this.end(reason);
  }

  /** Something the frame says about this link. */
  hear(event: RtcEvent): void {
    if (!this.open) return;
    switch (event.type) {
      case 'rtc-signal': {
        const { kind, sdp, mid, line } = event.signal;
        return this.events.signal(kind, sdp, mid, line);
      }
      case 'rtc-opened':
        return this.events.opened();
      case 'rtc-routed':
        return this.events.routed(event.route);
      case 'rtc-received':
        return this.events.received(event.message);
      case 'rtc-buffered':
        this.reported = event.amount;
        this.unreported.shift();
        if (this.buffered() < LOW_WATER) this.drained();
        return;
      case 'rtc-closed':
        return this.end(event.reason);
    }
  }

  /** The link is over: by the peer, by us, or because its frame is gone. */
  end(reason: string): void {
    if (!this.open) return;
    this.open = false;
    this.forget();
    this.drained();
    this.events.closed(reason);
  }

  private flush(): void {
    const messages = this.outbox;
    if (!messages.length || !this.open) return;
    this.outbox = [];
    this.unreported.push(this.waiting);
    this.waiting = 0;
    this.command({ type: 'rtc-send', link: this.number, messages }, messages);
  }

  private drained(): void {
    for (const resolve of this.draining.splice(0)) resolve();
  }

  private command(command: RtcCommand, transfer: Transferable[] = []): void {
    this.frame.send(command, transfer);
  }
}

export class Peers {
  private readonly links = new Map<number, PeerLink>();
  private made = 0;

  constructor(private readonly frames: Frames) {}

  /** Raises Unreachable when no page is there to hold a connection. */
  connect(initiator: boolean, iceServers: IceServer[], events: LinkEvents): PeerLink {
    const frame = this.frames.oldest;
    if (!frame) throw new NodeError('Unreachable', 'no open page can hold a WebRTC connection');
    const number = ++this.made;
    const link = new PeerLink(number, frame, events, () => this.links.delete(number));
    this.links.set(number, link);
    frame.send({ type: 'rtc-open', link: number, initiator, iceServers });
    return link;
  }

  hear(frame: Frame, event: RtcEvent): void {
    const link = this.links.get(event.link);
    // Link numbers are this worker's, so another frame has no business with them.
    if (link?.frame === frame) link.hear(event);
  }

  frameGone(frame: Frame): void {
    for (const link of [...this.links.values()]) {
      if (link.frame === frame) link.end('the tab that held the connection was closed');
    }
  }
}
