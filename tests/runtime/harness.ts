/** A worker like the real one, that runs Python it is given instead of a node. */

import { Bridge } from '../../loader/worker/bridge';
import { startInterpreter } from '../../loader/worker/interpreter';
import { Peers } from '../../loader/worker/peers';
import { RuntimeFiles } from '../../loader/worker/runtime_files';
import { runtimeFolder } from '../../loader/worker/scope';
import { Switchboard } from '../../loader/worker/switchboard';

interface Job {
  /** Python that defines `async def main(bridge, argument)`, which returns text. */
  source: string;
  argument: string;
}

const ready = (async () => {
  const files = new RuntimeFiles(runtimeFolder(location.origin));
  const { python } = await startInterpreter(files);
  const switchboard: Switchboard = new Switchboard((frame) => peers.frameGone(frame));
  const peers: Peers = new Peers(switchboard.frames);
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
