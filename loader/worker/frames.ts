/**
 * The frames (tabs) that this worker serves, each behind its port. Call ids are a port's own;
 * the node sees one number space: `frame * 2^32 + id`.
 */

import type { FrameToWorker, WorkerToFrame } from '../protocol';

const IDS = 2 ** 32;

export class Frame {
  /** Ids, as the node knows them, of calls that have not been answered. */
  readonly calls = new Set<number>();

  constructor(
    readonly number: number,
    private readonly port: MessagePort,
    /** Of a service worker's client. */
    readonly client: string | null,
  ) {}

  send(message: WorkerToFrame, transfer: Transferable[] = []): void {
    this.port.postMessage(message, transfer);
  }

  listen(heard: (message: FrameToWorker) => void, closed: () => void): void {
    this.port.onmessage = ({ data }: MessageEvent<FrameToWorker>) => heard(data);
    // Where browsers say so at all (Chromium does); elsewhere Leave and clients tell.
    this.port.addEventListener('close', closed);
  }

  close(): void {
    this.port.onmessage = null;
    this.port.close();
  }

  /** The node's id for one of this port's; null for what is none. */
  toNode(id: unknown): number | null {
    const valid = typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < IDS;
    return valid ? this.number * IDS + id : null;
  }
}

export class Frames {
  private readonly frames: Frame[] = [];
  private made = 0;

  constructor(private readonly gone: (frame: Frame) => void) {}

  /** A page that boots again replaces its former port. */
  add(port: MessagePort, client: string | null): Frame {
    for (const frame of [...this.frames]) if (client && frame.client === client) this.remove(frame);
    const frame = new Frame(++this.made, port, client);
    this.frames.push(frame);
    return frame;
  }

  remove(frame: Frame): void {
    const at = this.frames.indexOf(frame);
    if (at < 0) return;
    this.frames.splice(at, 1);
    frame.close();
    this.gone(frame);
  }

  /** The one that has been there longest: it owns the peer connections. */
  get oldest(): Frame | undefined {
    return this.frames[0];
  }

  get all(): readonly Frame[] {
    return this.frames;
  }

  /** Whose call it is, and the id that its port gave it. */
  find(nodeId: number): { frame: Frame; id: number } | null {
    const number = Math.floor(nodeId / IDS);
    const frame = this.frames.find((one) => one.number === number);
    return frame ? { frame, id: nodeId % IDS } : null;
  }

  /** Forget clients that the browser no longer knows: their ports close in silence. */
  async sweep(clients: Clients): Promise<void> {
    for (const frame of [...this.frames]) {
      if (frame.client && !(await clients.get(frame.client))) this.remove(frame);
    }
  }
}
