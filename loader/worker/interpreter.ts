/** Python: Pyodide with the node's modules, started cold or from a snapshot. */

import { loadPyodide } from 'pyodide';
import createPyodideModule from 'pyodide/pyodide.asm.mjs';
import { asNodeError, NodeError, within } from './errors';
import type { RuntimeFiles } from './runtime_files';
import { Snapshot } from './snapshot';
import { supply } from './supply';

export type Interpreter = Awaited<ReturnType<typeof loadPyodide>>;

/** A slow phone needs a quarter of this; only something broken needs more. */
const START_MS = 90_000;

/** The smallest WebAssembly module: a header. */
const EMPTY_MODULE = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

/** Imported before the snapshot is taken, so that a restart does not import it again. */
const IMPORTS = `
import array, asyncio, base64, bisect, collections, contextlib, copy, dataclasses, datetime, decimal
import enum, functools, hashlib, heapq, hmac, importlib.util, itertools, json, logging, math
import operator, random, re, secrets, struct, time, types, typing, urllib.parse, weakref
import pyodide.ffi, pyodide.webloop
`;

/** The generator's state came with the snapshot: every start would draw the same numbers. */
const AFTER_SNAPSHOT = 'import random; random.seed()';

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
      python.runPython(AFTER_SNAPSHOT);
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
    python.runPython(IMPORTS);
    void snapshot.save(python.makeMemorySnapshot() as Uint8Array<ArrayBuffer>);
  }
  addModules(python, site, node);
  for (const name of ['pyodide', 'stdlib', 'site', 'node']) files.release(name);
  return { python, fromSnapshot };
}

/** Extension modules cannot be in a snapshot, so everything that needs one comes after it. */
function addModules(python: Interpreter, site: ArrayBuffer, node: ArrayBuffer): void {
  const packages = python.runPython('import site; site.getsitepackages()[0]') as string;
  python.unpackArchive(site, 'zip', { extractDir: packages });
  python.FS.writeFile('/lib/kwaainet.zip', new Uint8Array(node));
  python.runPython(`
import sys
sys.path.append("/lib/kwaainet.zip")
sys.path_importer_cache.clear()
`);
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
