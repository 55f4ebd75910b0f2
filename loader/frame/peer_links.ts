/** Does what the worker says with peer connections, and tells it what happens. */

import type { IceServer, RtcCommand } from '../protocol';
import { type EmitRtc, PeerLink } from './peer_link';

export class PeerLinks {
  private readonly links = new Map<number, PeerLink>();

  constructor(private readonly emit: EmitRtc) {}

  execute(command: RtcCommand): void {
    const { link: number } = command;
    const link = this.links.get(number);
    switch (command.type) {
      case 'rtc-open':
        link?.close('opened again');
        this.open(number, command.initiator, command.iceServers);
        break;
      case 'rtc-signal':
        link?.signal(command.signal);
        break;
      case 'rtc-send':
        link?.send(command.messages);
        break;
      case 'rtc-close':
        link?.close('closed by this node');
        break;
    }
  }

  closeAll(reason: string): void {
    for (const link of [...this.links.values()]) link.close(reason);
  }

  private open(number: number, initiator: boolean, iceServers: IceServer[]): void {
    try {
      const link = new PeerLink(number, initiator, iceServers, this.emit, () => {
        if (this.links.get(number) === link) this.links.delete(number);
      });
      this.links.set(number, link);
    } catch (error) {
      // No WebRTC here (policy, privacy setting), or an ICE server that is not one.
      this.emit({ type: 'rtc-closed', link: number, reason: String(error) });
    }
  }
}
