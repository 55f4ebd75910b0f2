/** The worker of a member in a tab: Python, the bridge and a real frame's port, but no node. */

import type { RtcEvent } from '../../loader/protocol';
import { Bridge } from '../../loader/worker/bridge';
import { startInterpreter } from '../../loader/worker/interpreter';
import { Peers } from '../../loader/worker/peers';
import { RuntimeFiles } from '../../loader/worker/runtime_files';
import { runtimeFolder } from '../../loader/worker/scope';
import { Switchboard } from '../../loader/worker/switchboard';
import member from './member.py';
import tab from './tab.py';

async function start(port: MessagePort): Promise<(name: string, json: string) => Promise<string>> {
  const files = new RuntimeFiles(runtimeFolder(location.origin));
  const { python } = await startInterpreter(files);
  const switchboard: Switchboard = new Switchboard((frame) => peers.frameGone(frame));
  const peers: Peers = new Peers(switchboard.frames);
  const frame = switchboard.frames.add(port, null);
  port.onmessage = ({ data }: MessageEvent<RtcEvent>) => peers.hear(frame, data);
  const bridge = await Bridge.open(files, peers, switchboard, () => {});
  python.runPython(member);
  python.runPython(tab);
  const run = python.globals.get('run');
  return (name, json) => run(bridge, name, json);
}

let started: ReturnType<typeof start>;
self.onmessage = async ({ data, ports }: MessageEvent) => {
  const port = ports[0] as MessagePort;
  if (!data) {
    started = start(port);
    return;
  }
  try {
    const run = await started;
    port.postMessage({ ok: JSON.parse(await run(data.name, data.argument)) });
  } catch (error) {
    port.postMessage({ error: String(error) });
  }
};
