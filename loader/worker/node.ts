/** The one node of this worker: started by the first Boot, shared by all frames. */

import type { Boot } from '../protocol';
import { Bridge } from './bridge';
import { type Interpreter, startInterpreter } from './interpreter';
import { Peers } from './peers';
import { RuntimeFiles, runtimeTable } from './runtime_files';
import { bootId, hosting, runtimeFolder } from './scope';
import { compileEngine, engineFile } from './supply';
import { Switchboard } from './switchboard';

/** Files without which Python does not start. */
const NEEDED = ['pyodide', 'stdlib', 'site', 'node'];
/** Progress is told in steps of a percent. */
const STEPS = 100;

export class Node {
  readonly switchboard: Switchboard;
  readonly peers: Peers;
  private files: RuntimeFiles | undefined;
  private python: Promise<{ python: Interpreter; fromSnapshot: boolean }> | undefined;
  private serving: Promise<void> | undefined;
  /** The end of the node that serves. */
  private over: Promise<void> = Promise.resolve();

  constructor() {
    this.switchboard = new Switchboard((frame) => this.peers.frameGone(frame));
    this.peers = new Peers(this.switchboard.frames);
  }

  /** Resolves when the node serves or has failed aloud. A second Boot joins the first. */
  boot(boot: Boot): Promise<void> {
    // It has been asked to stop: this page wants the next one.
    if (this.serving && this.switchboard.stopping) return this.over.then(() => this.boot(boot));
    this.serving ??= this.start(boot, performance.now());
    return this.serving;
  }

  private async start(boot: Boot, began: number): Promise<void> {
    const { config } = boot;
    try {
      this.files ??= new RuntimeFiles(runtimeFolder(config.cdn), this.loadingTold());
      const files = this.files;
      this.python ??= startInterpreter(files);
      // While Python starts there is time to fetch and compile the engine.
      compileEngine(files.read(engineFile));
      const { python, fromSnapshot } = await this.python;
      await new Promise<void>((resolve, reject) => {
        const opened = (): void => {
          const ms = Math.round(performance.now() - began);
          const value = { hosting, boot: bootId, fromSnapshot, ms };
          this.switchboard.notice({ type: 'notice', event: 'worker', value });
          resolve();
        };
        const life = this.run(python, files, JSON.stringify(config), opened);
        this.over = life.then(() => this.ended(), reject).then(resolve);
      });
      void files.sweep();
    } catch (error) {
      console.error('KwaaiNet: the node failed', error);
      this.python = undefined;
      this.serving = undefined; // the next page may try again
      this.switchboard.fail(error);
    }
  }

  /** For as long as the node runs. */
  private async run(
    python: Interpreter,
    files: RuntimeFiles,
    config: string,
    opened: () => void,
  ): Promise<void> {
    const bridge = await Bridge.open(files, this.peers, this.switchboard, opened);
    const host = python.pyimport('pyodide_node.hosts.browser');
    try {
      await host.start(bridge, config);
      if (bridge.refusal) throw bridge.refusal;
    } finally {
      host.destroy();
    }
  }

  /** It was asked to stop. The interpreter stays, for a page that boots again. */
  private ended(): void {
    this.serving = undefined;
    this.switchboard.close();
  }

  private loadingTold(): (bytes: number) => void {
    const total = NEEDED.reduce((sum, name) => sum + (runtimeTable[name]?.bytes ?? 0), 0);
    let done = 0;
    let told = -1;
    return (bytes) => {
      done += bytes;
      const share = Math.min(1, Math.floor((done / total) * STEPS) / STEPS);
      if (share === told) return;
      told = share;
      const value = { stage: 'runtime', text: 'Loading the node', share };
      this.switchboard.notice({ type: 'notice', event: 'progress', value });
    };
  }
}
