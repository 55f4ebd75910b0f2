/** The Python half of the runtime, packed by pack.py inside the very interpreter it is for. */

import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { loadPyodide } from 'pyodide';
import { place, sha256 } from './files.mjs';
import { CACHE, HERE, MODULES, ROOT } from './paths.mjs';
import { wheels } from './wheels.mjs';

/** Modules that a tab never runs: other worlds' hosts, and what they share. */
const OTHER_HOSTS = /^pyodide_node\/hosts\/(native|simulated|crypto|steps)(\.py$|\/)/;

let interpreter;

/** {name: bytes} of the standard library, the wheels and the node; packs only what has changed. */
export async function pythonArchives() {
  const script = await readFile(path.join(HERE, 'pack.py'));
  const stdlib = await readFile(path.join(MODULES, 'pyodide/python_stdlib.zip'));
  const packages = (await wheels()).map((wheel) => wheel.bytes);
  const node = await nodeSources();
  const jobs = {
    stdlib: { inputs: [stdlib], call: (pack, [zip]) => pack.pack_stdlib(zip) },
    site: { inputs: packages, call: (pack, blobs) => pack.pack_site(blobs) },
    node: {
      inputs: Object.entries(node).flat(),
      call: (pack, parts) => pack.pack_node(pairs(parts)),
    },
  };
  const archives = {};
  for (const [name, { inputs, call }] of Object.entries(jobs)) {
    const key = sha256(Buffer.concat([script, ...inputs.map((x) => Buffer.from(sha256(x)))]));
    archives[name] = await cached(`${name}-${key.slice(0, 16)}`, () => packed(call, inputs));
  }
  return archives;
}

function pairs(parts) {
  const map = new Map();
  for (let i = 0; i < parts.length; i += 2) map.set(parts[i], parts[i + 1]);
  return map;
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

async function packed(call, inputs) {
  interpreter ??= await startInterpreter();
  const { python, pack } = interpreter;
  // Python's own bytes: a view of JavaScript memory is not hashable, sliceable or compilable.
  const toBytes = (value) =>
    typeof value === 'string' ? value : python.runPython('bytes_of')(new Uint8Array(value));
  const facade = new Proxy(pack, {
    get: (target, name) => (value) => target[name](python.toPy(value)),
  });
  const result = call(facade, inputs.map(toBytes));
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
  python.runPython(`
    import sys
    sys.path.insert(0, "/build")
    sys.dont_write_bytecode = True
    def bytes_of(view):
        return view.to_bytes()
  `);
  return { python, pack: python.pyimport('pack') };
}
