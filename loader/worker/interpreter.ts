/** Python: Pyodide with the node's modules, started cold or from a snapshot. */

import { loadPyodide } from 'pyodide';
import createPyodideModule from 'pyodide/pyodide.asm.mjs';
import { asNodeError, NodeError, within } from './errors';
import prelude from './prelude.py';
import type { RuntimeFiles } from './runtime_files';
import { Snapshot } from './snapshot';
import { supply } from './supply';

export type Interpreter = Awaited<ReturnType<typeof loadPyodide>>;

/** A slow phone needs a quarter of this; only something broken needs more. */
const START_MS = 90_000;

/** The smallest WebAssembly module: a header. */
const EMPTY_MODULE = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

export interface Started {
  python: Interpreter;
  fromSnapshot: boolean;
}

/** Raises EngineError where WebAssembly is denied, and what reading the files raises. */
export async function startInterpreter(files: RuntimeFiles): Promise<Started> {
  await probeWebAssembly();
  const snapshot = new Snapshot();
  const [wasm, stdlib, site, node, memory] = await Promise.all([
    files.read('pyodide'),
    files.read('stdlib'),
    files.read('site'),
    files.read('node'),
    snapshot.load(),
  ]);
  const binaries = { 'pyodide.asm.wasm': wasm, 'python_stdlib.zip': stdlib };
  let python: Interpreter | undefined;
  if (memory) {
    try {
      python = await load(binaries, { _loadSnapshot: memory });
    } catch (error) {
      // Whatever is wrong with it, a cold start puts it right.
      console.warn('KwaaiNet: the snapshot does not load', error);
      python = undefined;
      await snapshot.drop();
    }
  }
  const fromSnapshot = python !== undefined;
  if (!python) {
    python = await load(binaries, { _makeSnapshot: true });
    python.runPython(prelude);
    keep(python, snapshot);
  }
  // Extension modules cannot be in a snapshot, so what needs them comes after it.
  const install = python.globals.get('install');
  install([site, node]);
  install.destroy();
  for (const name of ['pyodide', 'stdlib', 'site', 'node']) files.release(name);
  return { python, fromSnapshot };
}

/** The next start is then a quick one; this one goes on either way. */
function keep(python: Interpreter, snapshot: Snapshot): void {
  try {
    void snapshot.save(python.makeMemorySnapshot() as Uint8Array<ArrayBuffer>);
  } catch (error) {
    console.warn('KwaaiNet: no snapshot can be taken', error);
  }
}

async function load(files: Record<string, ArrayBuffer>, options: object): Promise<Interpreter> {
  const refused = new Promise<never>((_, reject) => {
    supply(files, (reason) => reject(asNodeError(reason, 'EngineError', 'Python was refused')));
  });
  const loaded = loadPyodide({
    // Never fetched from: supply() has what is asked for.
    indexURL: 'https://runtime.invalid/',
    createPyodideModule,
    lockFileContents: JSON.stringify({
      info: {
        abi_version: '2026_0',
        arch: 'wasm32',
        platform: 'emscripten_5_0_3',
        python: '3.14.2',
      },
      packages: {},
    }),
    ...options,
  } as Parameters<typeof loadPyodide>[0]);
  const what = `Python did not start within ${START_MS / 1000} s`;
  return within(START_MS, Promise.race([loaded, refused]), 'EngineError', what);
}

/** loadPyodide() would hang where the page's policy denies WebAssembly. */
async function probeWebAssembly(): Promise<void> {
  try {
    await WebAssembly.compile(EMPTY_MODULE);
  } catch (error) {
    const message =
      "this page's policy denies WebAssembly: add 'wasm-unsafe-eval' to its script-src";
    throw new NodeError('EngineError', message, error);
  }
}
