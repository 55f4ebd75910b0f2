/**
 * Every message between page, frame and worker. Types only: this file compiles to nothing.
 *
 *   page (tag)  ──Attach──▶  frame  ──Boot──▶  worker ── Python
 *               ◀──port──▶         ◀──port──▶
 *
 * A port is handed over once, in Attach and in Boot; all that follows travels by it. The frame
 * passes Call, Reply and Notice through without looking inside: they are Python's. It adds one
 * thing of its own: a Call that was under way when the worker died is answered with the error
 * code "WorkerLost", and the page may ask again (a "generate" with `resume_ids`).
 */

export const PROTOCOL_VERSION = 1;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** How the worker is hosted; the same bundle and the same node in each. */
export type Hosting = 'service-worker' | 'dedicated-worker';

/** What the tag read from its own element, as written; Python parses and judges it. */
export interface TagConfig {
  /** `data-*` attributes by their name without `data-`, e.g. {"max-resources": "cpu:20"}. */
  attributes: Record<string, string>;
  /** Origin of the site that shows the tag, e.g. "https://example.org". */
  site: string;
  /** Origin that serves the tag, frame, worker and runtime, e.g. "https://cdn.example.net". */
  cdn: string;
}

/** page → frame by window.postMessage(…, cdnOrigin, [port]): the only window message there is. */
export interface Attach {
  type: 'kwaainet-attach';
  version: typeof PROTOCOL_VERSION;
  config: TagConfig;
}

/** frame → worker by worker.postMessage or registration.active.postMessage, with [port]. */
export interface Boot {
  type: 'boot';
  version: typeof PROTOCOL_VERSION;
  config: TagConfig;
  hosting: Hosting;
}

/**
 * frame → service worker every ≤ 20 s by active.postMessage: the only thing that keeps it alive.
 * It carries a port, and Alive is answered on that one: a killed worker is woken by the heartbeat
 * itself and shows its new boot id at once, while a busy one is merely late.
 */
export interface Heartbeat {
  type: 'heartbeat';
}

/** A request to the node. `id` is unique for its port. */
export interface Call {
  type: 'call';
  id: number;
  /** "generate" | "cancel" | "status" | "limits" | "stop": see pyodide_node/control.py. */
  method: string;
  params: Json;
}

export interface ErrorData {
  /** Name of a class in pyodide_node/errors.py, or of a JavaScript error. */
  code: string;
  message: string;
  data?: Json;
}

/** Answers a Call: any number of "chunk", then one "done" or "error". */
export type Reply =
  | { type: 'reply'; id: number; event: 'chunk' | 'done'; value: Json }
  | { type: 'reply'; id: number; event: 'error'; error: ErrorData };

/** Said without being asked. */
export type Notice =
  /** Loading, for a progress bar: share in 0…1, or null where it cannot be known. */
  | {
      type: 'notice';
      event: 'progress';
      value: { stage: string; text: string; share: number | null };
    }
  /** The node's state, about once a second while anybody looks and on every change. */
  | { type: 'notice'; event: 'status'; value: Json }
  /** The route of a running "generate", to the port that asked: at its start and after a change. */
  | { type: 'notice'; event: 'route'; value: { call: number; route: Json } }
  /** The worker that hosts the node: its mode, and a boot id that changes when it was restarted. */
  | {
      type: 'notice';
      event: 'worker';
      value: { hosting: Hosting; boot: string; fromSnapshot: boolean; ms: number };
    }
  /** The node cannot run; nothing more will come until the page is loaded again. */
  | { type: 'notice'; event: 'failed'; value: ErrorData };

/** worker → frame after Boot and after every Probe. A new `boot` means a new worker: boot again. */
export interface Alive {
  type: 'alive';
  boot: string;
}

/** frame → dedicated worker by the port; no Alive within the deadline means that it died. */
export interface Probe {
  type: 'probe';
}

/**
 * frame → worker by the port, last of all, when the page goes away: ports say nothing when they
 * close in most browsers. The worker forgets the port, its calls and its links.
 */
export interface Leave {
  type: 'leave';
}

/**
 * page → frame: stop hosting. With `forget` (consent was withdrawn) the service worker is also
 * unregistered and everything stored in the frame's partition deleted. Answered by Detached.
 */
export interface Detach {
  type: 'detach';
  forget: boolean;
}

export interface Detached {
  type: 'detached';
}

/**
 * RTCPeerConnection lives only in windows, the node in the worker: the frame owns the
 * connections and does what it is told. `link` numbers are the worker's.
 */
export type RtcCommand =
  | { type: 'rtc-open'; link: number; initiator: boolean; iceServers: IceServer[] }
  | { type: 'rtc-signal'; link: number; signal: RtcSignal }
  /** Messages are sent in order, one RTCDataChannel.send each; buffers are transferred. */
  | { type: 'rtc-send'; link: number; messages: ArrayBuffer[] }
  | { type: 'rtc-close'; link: number };

export type RtcEvent =
  | { type: 'rtc-signal'; link: number; signal: RtcSignal }
  | { type: 'rtc-opened'; link: number }
  /** How packets travel, told when the channel opens and when that changes. */
  | { type: 'rtc-routed'; link: number; route: RtcRoute }
  | { type: 'rtc-received'; link: number; message: ArrayBuffer }
  /** bufferedAmount, told when it crosses the water marks and after each rtc-send. */
  | { type: 'rtc-buffered'; link: number; amount: number }
  | { type: 'rtc-closed'; link: number; reason: string };

/** Straight, by the peer's TURN server, or by one that this side reaches in this way. */
export type RtcRoute = 'direct' | 'turn' | 'turn-udp' | 'turn-tcp' | 'turn-tls';

/** As RTCIceServer; the structured clone of what the relay told the node. */
export interface IceServer {
  urls: string;
  username?: string;
  credential?: string;
}

export interface RtcSignal {
  kind: 'offer' | 'answer' | 'candidate';
  sdp: string;
  mid: string;
  line: number;
}

export type PageToFrame = Call | Detach;
export type FrameToPage = Reply | Notice | Detached;
export type FrameToWorker = Call | Probe | Leave | RtcEvent;
export type WorkerToFrame = Reply | Notice | Alive | RtcCommand;
