/** The node's state as pyodide_node tells it: the value of `status()` and of `status` events. */

export interface Status {
  state: string;
  peer: string;
  /** `chat`: it has a form for messages; one without continues text. */
  model: { name: string; blocks: number; id: string; chat: boolean } | null;
  /** Blocks [first, last) that this node serves. */
  span: [number, number] | null;
  engine: string;
  host: string;
  relay: { url: string; connected: boolean };
  peers: Peer[];
  budget: { cpu: Use; memory: Use; storage: Use };
  served: { tokens: number; sessions: number };
  /** Bytes of model files: fetched, by where from, and given to other nodes. */
  sources?: { peers: number; mirrors: number; ipfs: number };
  seeded?: number;
  /** What keeps it from serving, in words for people; "" when nothing does. */
  problem?: string;
  version: string;
}

/** Percent of one core for `cpu`, MB for `memory` and `storage`. */
export interface Use {
  limit: number;
  used: number;
}

export interface Hop {
  peer: string;
  host: string;
  first_block: number;
  last_block: number;
  engine: string;
  /** "local", or how it is reached: by WebRTC or through a relay. */
  path: string;
  /** Of its last step, measured by the asker; only in routes. */
  step_ms?: number | null;
}

export interface Peer extends Hop {
  /** Of WebRTC: direct, turn, turn-udp, turn-tcp or turn-tls; else the path; null if unknown. */
  route: string | null;
  rtt_ms: number | null;
}
