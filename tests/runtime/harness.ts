/** A worker like the real one, that runs Python it is given instead of a node. */

import type { RtcCommand } from '../../loader/protocol';
import { Bridge } from '../../loader/worker/bridge';
import type { Frame } from '../../loader/worker/frames';
import { startInterpreter } from '../../loader/worker/interpreter';
import { Peers } from '../../loader/worker/peers';
import { RuntimeFiles } from '../../loader/worker/runtime_files';
import { runtimeFolder } from '../../loader/worker/scope';
import { engineModule } from '../../loader/worker/supply';
import { Switchboard } from '../../loader/worker/switchboard';
import { bareDecode } from './bare';

interface Job {
  /** Python that defines `async def main(bridge, argument)`, which returns text. */
  source: string;
  argument: string;
}

/** A page's frame, as the worker sees it: what it is told, and what it says. */
class FakeFrame {
  readonly commands: RtcCommand[] = [];
  private readonly port: MessagePort;
  private readonly frame: Frame;
  private woken: () => void = () => {};

  constructor(
    switchboard: Switchboard,
    private readonly peers: Peers,
  ) {
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    this.frame = switchboard.frames.add(port2, null);
    port1.onmessage = ({ data }) => {
      this.commands.push(data);
      this.woken();
    };
  }

  /** JSON of the first `count` commands, buffers by their sizes. */
  async told(count: number): Promise<string> {
    while (this.commands.length < count) {
      await new Promise<void>((resolve) => {
        this.woken = resolve;
      });
    }
    const sizes = (_: string, value: unknown): unknown =>
      value instanceof ArrayBuffer ? value.byteLength : value;
    return JSON.stringify(this.commands, sizes);
  }

  say(json: string): void {
    this.peers.hear(this.frame, JSON.parse(json));
  }

  deliver(link: number, text: string): void {
    const message = new TextEncoder().encode(text).buffer;
    this.peers.hear(this.frame, { type: 'rtc-received', link, message });
  }

  leave(switchboard: Switchboard): void {
    switchboard.frames.remove(this.frame);
    this.port.close();
  }
}

Object.assign(self, { bareDecode, engineModule });

const ready = (async () => {
  const files = new RuntimeFiles(runtimeFolder(location.origin));
  const { python } = await startInterpreter(files);
  const switchboard: Switchboard = new Switchboard((frame) => peers.frameGone(frame));
  const peers: Peers = new Peers(switchboard.frames);
  const openFrame = (): FakeFrame => new FakeFrame(switchboard, peers);
  Object.assign(self, { openFrame, closeFrame: (frame: FakeFrame) => frame.leave(switchboard) });
  const bridge = await Bridge.open(files, peers, switchboard, () => {});
  python.runPython(`
def _run(source, bridge, argument):
    namespace = {"__name__": "in_tab"}
    exec(compile(source, "in_tab", "exec"), namespace)
    return namespace["main"](bridge, argument)
`);
  return { run: python.globals.get('_run'), bridge };
})();

self.onmessage = async ({ data, ports }: MessageEvent<Job>) => {
  try {
    const { run, bridge } = await ready;
    ports[0]?.postMessage({ ok: await run(data.source, bridge, data.argument) });
  } catch (error) {
    ports[0]?.postMessage({ error: String(error) });
  }
};
