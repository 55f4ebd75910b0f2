/** The page of a member in a tab: owns its peer connections, as the frame does. */

import { PeerLinks } from '../../loader/frame/peer_links';

interface Lab {
  command(name: string, argument: unknown): Promise<unknown>;
}

const worker = new Worker('/lab-worker.js');
const { port1: rtc, port2 } = new MessageChannel();
const links = new PeerLinks((event, transfer = []) => rtc.postMessage(event, transfer));
rtc.onmessage = ({ data }) => links.execute(data);
worker.postMessage(null, [port2]);

const lab: Lab = {
  command: (name, argument) =>
    new Promise((resolve, reject) => {
      const { port1, port2: answer } = new MessageChannel();
      port1.onmessage = ({ data }) => ('error' in data ? reject(data.error) : resolve(data.ok));
      worker.onerror = ({ message }) => reject(message);
      worker.postMessage({ name, argument: JSON.stringify(argument) }, [answer]);
    }),
};
Object.assign(window, { lab });
