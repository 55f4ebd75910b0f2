/**
 * What Python is given: the browser's objects, thinly wrapped. Bytes come in as Python buffers
 * and go out as ArrayBuffers; errors go out as NodeErrors whose name is a Python class.
 */

import type { PythonBytes } from './buffers';
import { detectGpu, Engine } from './engine';
import { type ErrorName, NodeError } from './errors';
import { type FileBytes, fileOf } from './file';
import { Keys } from './keys';
import type { LinkEvents, PeerLink, Peers } from './peers';
import { rows } from './rows';
import type { RuntimeFiles } from './runtime_files';
import { dial, type RelaySocket } from './sockets';
import { Store } from './store';
import type { Switchboard } from './switchboard';
import { Tokenizer } from './tokenizer';

/** A Python function; `destroy` lets Python forget it. */
type PythonFunction<A extends unknown[]> = ((...args: A) => void) & { destroy?(): void };

export class Bridge {
  /** Why there will be no node. */
  refusal: NodeError | undefined;

  private constructor(
    readonly keys: Keys,
    readonly store: Store,
    /** "none", "software" or "hardware". */
    readonly gpu: string,
    /** Whether the GPU computes in float16 too. */
    readonly half: boolean,
    private readonly files: RuntimeFiles,
    private readonly peers: Peers,
    private readonly switchboard: Switchboard,
    private readonly opened: () => void,
  ) {}

  static async open(
    files: RuntimeFiles,
    peers: Peers,
    switchboard: Switchboard,
    opened: () => void,
  ): Promise<Bridge> {
    const [keys, store, gpu] = await Promise.all([Keys.open(), Store.open(), detectGpu()]);
    return new Bridge(keys, store, gpu.kind, gpu.half, files, peers, switchboard, opened);
  }

  /** JSON of a Reply or a Notice. */
  post(json: string): void {
    this.switchboard.post(json);
  }

  /** Calls go to `deliver` from now on: the node is serving. */
  serve(deliver: PythonFunction<[string]>): void {
    this.switchboard.open(deliver);
    this.opened();
  }

  /** The node cannot be made of what the page asked for; `code` is a class of errors.py. */
  refuse(code: string, message: string): void {
    this.refusal = new NodeError(code as ErrorName, message);
  }

  engine(provider: 'webgpu' | 'wasm'): Engine {
    return new Engine(provider, this.files);
  }

  tokenizer(json: FileBytes): Tokenizer {
    return new Tokenizer(fileOf(json).whole());
  }

  /** See rows.ts. */
  rows(weights: PythonBytes, scales: PythonBytes, bits: number): ArrayBuffer {
    return rows(weights, scales, bits);
  }

  dial(
    url: string,
    received: PythonFunction<[ArrayBuffer]>,
    closed: PythonFunction<[string]>,
  ): Promise<RelaySocket> {
    return dial(url, received, closed);
  }

  connect(
    initiator: boolean,
    iceServers: [url: string, username: string, credential: string][],
    signal: LinkEvents['signal'],
    opened: LinkEvents['opened'],
    routed: LinkEvents['routed'],
    received: LinkEvents['received'],
    closed: LinkEvents['closed'],
  ): PeerLink {
    const servers = iceServers.map(([urls, username, credential]) =>
      username ? { urls, username, credential } : { urls },
    );
    return this.peers.connect(initiator, servers, { signal, opened, routed, received, closed });
  }
}
