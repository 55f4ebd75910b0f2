/** The Python half of the runtime, packed by pack.py inside the very interpreter it is for. */

import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { loadPyodide } from 'pyodide';
import { place, sha256 } from './files.mjs';
import { CACHE, HERE, MODULES, ROOT } from './paths.mjs';
import { wheels } from './wheels.mjs';

/** Modules that a tab never runs: other worlds' hosts, and what they share. */
const OTHER_HOSTS = /^pyodide_node\/hosts\/(native|simulated|crypto|expansion|steps)(\.py$|\/)/;

let interpreter;

/** {name: bytes} of the standard library, the wheels and the node; packs only what has changed. */
export async function pythonArchives() {
  const stdlib = await readFile(path.join(MODULES, 'pyodide/python_stdlib.zip'));
  const inputs = {
    stdlib: { 'python_stdlib.zip': stdlib },
    site: Object.fromEntries((await wheels()).map((wheel) => [wheel.file, wheel.bytes])),
    node: await nodeSources(),
  };
  const script = await readFile(path.join(HERE, 'pack.py'));
  const archives = {};
  for (const [kind, files] of Object.entries(inputs)) {
    const hashes = Object.entries(files).map(([name, bytes]) => `${name} ${sha256(bytes)}`);
    const key = sha256(Buffer.from([sha256(script), ...hashes].join('\n')));
    const name = `${kind}-${key.slice(0, 16)}`;
    archives[kind] = await cached(name, () => packed(kind, files));
  }
  return archives;
}

async function nodeSources() {
  const folder = path.join(ROOT, 'pyodide_node');
  const entries = await readdir(folder, { recursive: true });
  const names = entries
    .filter((name) => name.endsWith('.py'))
    .map((name) => `pyodide_node/${name.split(path.sep).join('/')}`)
    .filter((name) => !OTHER_HOSTS.test(name))
    .sort();
  const read = async (name) => [name, await readFile(path.join(ROOT, name))];
  return Object.fromEntries(await Promise.all(names.map(read)));
}

async function cached(name, make) {
  const file = path.join(CACHE, 'python', name);
  if (!existsSync(file)) await place(file, await make());
  return readFile(file);
}

async function packed(kind, files) {
  interpreter ??= await startInterpreter();
  const names = Object.keys(files);
  const contents = Object.values(files).map((bytes) => new Uint8Array(bytes));
  const result = interpreter.pyimport('pack').pack(kind, names, contents);
  const view = result.getBuffer('u8');
  const bytes = Buffer.from(view.data);
  view.release();
  return bytes;
}

async function startInterpreter() {
  // A fixed seed: the order of frozensets in byte code depends on it.
  const python = await loadPyodide({ env: { PYTHONHASHSEED: '0', HOME: '/home' } });
  python.FS.mkdirTree('/build');
  python.FS.writeFile('/build/pack.py', await readFile(path.join(HERE, 'pack.py'), 'utf8'));
  python.runPython('import sys; sys.path.insert(0, "/build")');
  return python;
}
