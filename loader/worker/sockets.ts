/** WebSockets to relays. */

import { bytesOf, type PythonBytes } from './buffers';
import { NodeError } from './errors';

const DIAL_MS = 10_000;
const LOW_WATER = 256 * 1024;
/** There is no event for a socket that has drained. */
const DRAIN_POLL_MS = 15;

export class RelaySocket {
  constructor(private readonly socket: WebSocket) {}

  buffered(): number {
    return this.socket.bufferedAmount;
  }

  send(data: PythonBytes): void {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(bytesOf(data));
  }

  async drain(): Promise<void> {
    while (this.socket.readyState === WebSocket.OPEN && this.socket.bufferedAmount >= LOW_WATER) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_POLL_MS));
    }
  }

  close(): void {
    this.socket.close();
  }
}

/** Raises Unreachable. `closed` is called once if it opened. */
export function dial(
  url: string,
  received: (message: ArrayBuffer) => void,
  closed: (reason: string) => void,
): Promise<RelaySocket> {
  return new Promise((resolve, reject) => {
    const unreachable = (why: string): void =>
      reject(new NodeError('Unreachable', `the relay at ${url} ${why}`));
    let socket: WebSocket;
    try {
      socket = new WebSocket(url);
    } catch (error) {
      return unreachable(`cannot be dialled: ${error}`);
    }
    socket.binaryType = 'arraybuffer';
    const timer = setTimeout(() => {
      socket.onclose = null;
      socket.close();
      unreachable(`did not answer within ${DIAL_MS / 1000} s`);
    }, DIAL_MS);
    socket.onclose = () => {
      clearTimeout(timer);
      unreachable('does not answer');
    };
    socket.onopen = () => {
      clearTimeout(timer);
      socket.onclose = ({ reason, code }) => closed(reason || `closed (${code})`);
      socket.onmessage = ({ data }) => {
        if (data instanceof ArrayBuffer) received(data);
        else socket.close(1003, 'text is not spoken here'); // RFC 6455, 7.4.1
      };
      resolve(new RelaySocket(socket));
    };
  });
}
