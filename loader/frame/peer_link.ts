/**
 * One RTCPeerConnection with one ordered, reliable data channel (RFC 8831).
 *
 * Chunking is the node's: it hands over messages that fit one SCTP burst. This class only keeps
 * their order, and never lets `send` throw: beyond the high-water mark messages wait here.
 */

import type { IceServer, RtcEvent, RtcRoute, RtcSignal } from '../protocol';

export type EmitRtc = (event: RtcEvent, transfer?: Transferable[]) => void;

const LABEL = 'kwaainet';
/** From both descriptions to an open channel; paths that work take well under a second. */
const ICE_MS = 5000;
/** From opening to the peer's description: signalling passes through relays and sleeping tabs. */
const ANSWER_MS = 15_000;
/** Fills a 50 ms path; the browser's own limit, where `send` throws, is 16 MiB. */
const HIGH_WATER = 1024 * 1024;
const LOW_WATER = 256 * 1024;
/** The node stops far earlier; a link that gets here is broken or flooded. */
const QUEUE_LIMIT = 64 * 1024 * 1024;

export class PeerLink {
  private readonly connection: RTCPeerConnection;
  private channel: RTCDataChannel | null = null;
  private readonly queue: ArrayBuffer[] = [];
  private queued = 0;
  private early: RtcSignal[] = [];
  private work: Promise<void> = Promise.resolve();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private closed = false;

  constructor(
    private readonly number: number,
    initiator: boolean,
    iceServers: IceServer[],
    private readonly emit: EmitRtc,
    private readonly forget: () => void,
  ) {
    this.connection = new RTCPeerConnection({ iceServers });
    this.connection.onicecandidate = ({ candidate }) => this.tellCandidate(candidate);
    this.connection.onconnectionstatechange = () => {
      if (this.connection.connectionState === 'failed') this.close('the connection failed');
    };
    this.connection.ondatachannel = ({ channel }) => {
      if (channel.label === LABEL && !this.channel) this.adopt(channel);
      else channel.close();
    };
    this.deadline(ANSWER_MS, 'the peer did not answer');
    if (initiator) {
      this.adopt(this.connection.createDataChannel(LABEL));
      this.next(() => this.describe('offer'));
    }
  }

  signal(signal: RtcSignal): void {
    this.next(async () => {
      if (signal.kind === 'candidate') return this.addCandidate(signal);
      await this.connection.setRemoteDescription({ type: signal.kind, sdp: signal.sdp });
      this.deadline(ICE_MS, `no path to the peer within ${ICE_MS / 1000} s`);
      const early = this.early;
      this.early = [];
      for (const candidate of early) await this.addCandidate(candidate);
      if (signal.kind === 'offer') await this.describe('answer');
    });
  }

  send(messages: ArrayBuffer[]): void {
    for (const message of messages) {
      this.queue.push(message);
      this.queued += message.byteLength;
    }
    if (this.queued > QUEUE_LIMIT) this.close('the send queue overflowed');
    this.flush();
    this.tellBuffered();
  }

  close(reason: string): void {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.timer);
    this.queue.length = 0;
    this.connection.close(); // takes the channel with it
    this.forget();
    this.emit({ type: 'rtc-closed', link: this.number, reason });
  }

  private adopt(channel: RTCDataChannel): void {
    this.channel = channel;
    channel.binaryType = 'arraybuffer';
    channel.bufferedAmountLowThreshold = LOW_WATER;
    channel.onopen = () => this.opened();
    channel.onclose = () => this.close('the peer closed');
    channel.onerror = (event) =>
      this.close((event as RTCErrorEvent).error?.message ?? 'the channel failed');
    channel.onbufferedamountlow = () => {
      this.flush();
      this.tellBuffered();
    };
    channel.onmessage = ({ data }) => {
      if (!(data instanceof ArrayBuffer)) this.close('the peer sent text');
      else this.emit({ type: 'rtc-received', link: this.number, message: data }, [data]);
    };
  }

  private opened(): void {
    clearTimeout(this.timer);
    this.emit({ type: 'rtc-opened', link: this.number });
    this.flush();
    this.tellRoute();
  }

  /** Firefox before 150 or so does not know its pair; then nobody is told. */
  private tellRoute(): void {
    const ice = this.connection.sctp?.transport.iceTransport;
    if (!ice?.getSelectedCandidatePair) return;
    const tell = (): void => {
      const pair = ice.getSelectedCandidatePair();
      if (pair && !this.closed)
        this.emit({ type: 'rtc-routed', link: this.number, route: routeOf(pair) });
    };
    ice.onselectedcandidatepairchange = tell;
    tell();
  }

  private flush(): void {
    const { channel, queue } = this;
    if (channel?.readyState !== 'open') return;
    while (queue.length && channel.bufferedAmount < HIGH_WATER) {
      const message = queue.shift() as ArrayBuffer;
      this.queued -= message.byteLength;
      channel.send(message);
    }
  }

  private tellBuffered(): void {
    const amount = this.queued + (this.channel?.bufferedAmount ?? 0);
    if (!this.closed) this.emit({ type: 'rtc-buffered', link: this.number, amount });
  }

  private async describe(kind: 'offer' | 'answer'): Promise<void> {
    await this.connection.setLocalDescription();
    const sdp = this.connection.localDescription?.sdp ?? '';
    this.emit({ type: 'rtc-signal', link: this.number, signal: { kind, sdp, mid: '', line: 0 } });
  }

  private tellCandidate(candidate: RTCIceCandidate | null): void {
    if (candidate?.candidate === '') return; // of one generation; null ends them all
    const signal: RtcSignal = {
      kind: 'candidate',
      sdp: candidate?.candidate ?? '',
      mid: candidate?.sdpMid ?? '',
      line: candidate?.sdpMLineIndex ?? 0,
    };
    this.emit({ type: 'rtc-signal', link: this.number, signal });
  }

  private async addCandidate(signal: RtcSignal): Promise<void> {
    if (!this.connection.remoteDescription) this.early.push(signal);
    else if (signal.sdp === '')
      await this.connection.addIceCandidate(); // there are no more
    else {
      const { sdp: candidate, mid: sdpMid, line: sdpMLineIndex } = signal;
      await this.connection.addIceCandidate({ candidate, sdpMid, sdpMLineIndex });
    }
  }

  /** One step after the other: descriptions and candidates must not overtake each other. */
  private next(step: () => Promise<void>): void {
    this.work = this.work.then(async () => {
      if (this.closed) return;
      try {
        await step();
      } catch (error) {
        this.close(String(error));
      }
    });
  }

  private deadline(ms: number, reason: string): void {
    if (this.channel?.readyState === 'open') return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.close(reason), ms);
  }
}

function routeOf({ local, remote }: RTCIceCandidatePair): RtcRoute {
  // TypeScript's list of its properties is older.
  const { relayProtocol } = local as { relayProtocol?: 'udp' | 'tcp' | 'tls' };
  if (local?.type === 'relay') return `turn-${relayProtocol ?? 'udp'}`;
  return remote?.type === 'relay' ? 'turn' : 'direct';
}
