/**
 * Between the frames' ports and Python: maps call ids, passes replies to whoever asked and
 * notices to everybody. Python sees JSON text and one number space.
 */

import type { Call, ErrorData, Json, Notice, Reply } from '../protocol';
import { errorData } from './errors';
import { type Frame, Frames } from './frames';

type Deliver = (callJson: string) => void;
type RouteNotice = { type: 'notice'; event: 'route'; value: { call: number } };
type FromNode = Reply | Notice | RouteNotice;

/** Calls that may wait for Python to start; more than a page ever has. */
const WAITING = 256;

export class Switchboard {
  readonly frames: Frames;
  /** Whether the node has been asked to stop, and has not stopped yet. */
  stopping = false;
  private deliver: Deliver | null = null;
  private waiting: { frame: Frame; call: Call }[] = [];
  private failure: ErrorData | null = null;
  /** Last of each kind, for frames that join later. */
  private readonly notices = new Map<string, Notice>();

  constructor(gone: (frame: Frame) => void) {
    this.frames = new Frames((frame) => {
      for (const id of frame.calls) this.cancel(id);
      gone(frame);
    });
  }

  /** What a frame that has just joined should know. */
  welcome(frame: Frame): void {
    for (const notice of this.notices.values()) frame.send(notice);
  }

  call(frame: Frame, call: Call): void {
    if (this.failure) return refuse(frame, call.id, this.failure);
    if (this.deliver) return this.pass(frame, call);
    if (this.waiting.length < WAITING) this.waiting.push({ frame, call });
    else refuse(frame, call.id, { code: 'BudgetExceeded', message: 'too many calls are waiting' });
  }

  /** Python is up. */
  open(deliver: Deliver): void {
    this.failure = null;
    this.deliver = deliver;
    for (const { frame, call } of this.waiting.splice(0)) {
      if (this.frames.all.includes(frame)) this.pass(frame, call);
    }
  }

  /** The node has been stopped; calls wait for the next start. */
  close(): void {
    this.stopping = false;
    this.deliver = null;
    for (const frame of this.frames.all) frame.calls.clear();
  }

  /**
   * A page boots: a node that failed (a cap too low, a model not granted) gives way to a new one,
   * and its failure is not told to that page.
   */
  retry(): void {
    if (!this.notices.delete('failed') || !this.deliver) return;
    this.stopping = true;
    this.deliver(JSON.stringify({ type: 'call', id: -1, method: 'stop', params: null }));
  }

  /** Python will not be up, unless another page boots it. */
  fail(error: unknown): void {
    const failure = errorData(error);
    this.failure = failure;
    this.stopping = false;
    this.notice({ type: 'notice', event: 'failed', value: failure });
    for (const { frame, call } of this.waiting.splice(0)) refuse(frame, call.id, failure);
  }

  notice(notice: Notice): void {
    this.notices.set(notice.event, notice);
    for (const frame of this.frames.all) frame.send(notice);
  }

  /** JSON of a Reply or Notice, from Python. */
  post(json: string): void {
    const message = JSON.parse(json) as FromNode;
    if (message.type === 'reply') return this.reply(message);
    if (message.event !== 'route') return this.notice(message);
    const found = this.frames.find(message.value.call);
    // The page knows its call by its own id.
    const value = { ...message.value, call: found?.id };
    found?.frame.send({ ...message, value } as unknown as Notice);
  }

  private reply(reply: Reply): void {
    const found = this.frames.find(reply.id);
    if (!found) return; // its page has left
    if (reply.event !== 'chunk') found.frame.calls.delete(reply.id);
    found.frame.send({ ...reply, id: found.id });
  }

  private pass(frame: Frame, call: Call): void {
    const id = frame.toNode(call.id);
    if (id === null || frame.calls.has(id)) {
      const message = 'the id of a call must be a new whole number below 2^32';
      return refuse(frame, call.id, { code: 'ProtocolError', message });
    }
    frame.calls.add(id);
    this.stopping ||= call.method === 'stop';
    this.deliver?.(JSON.stringify({ ...call, id, params: ownIds(frame, call) }));
  }

  private cancel(id: number): void {
    this.deliver?.(
      JSON.stringify({ type: 'call', id: -1, method: 'cancel', params: { call: id } }),
    );
  }
}

/** "cancel" names another call of the same port. */
function ownIds(frame: Frame, { method, params }: Call): Json {
  if (method !== 'cancel' || typeof params !== 'object' || params === null) return params;
  return { ...params, call: frame.toNode((params as { call?: Json }).call) };
}

function refuse(frame: Frame, id: number, error: ErrorData): void {
  frame.send({ type: 'reply', id, event: 'error', error });
}
