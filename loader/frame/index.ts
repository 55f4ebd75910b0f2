/**
 * The hidden frame on the CDN origin: owns what only a window may own (RTCPeerConnections, the
 * service worker's registration, the heartbeat) and passes everything else through.
 *
 * The same script, started as a worker, is the frame's clock: see ticker.ts.
 */

import { accept } from './attach';
import { Supervisor } from './supervisor';
import { beTicker } from './ticker';

function listen(event: MessageEvent): void {
  const attachment = accept(event);
  if (!attachment) return;
  removeEventListener('message', listen); // the port is handed over once
  new Supervisor(attachment.config, attachment.port).start();
}

if (typeof document === 'undefined') beTicker();
else addEventListener('message', listen);
