/**
 * Builds all that the CDN serves into dist/cdn:  node build/runtime/bundle.mjs [--release]
 *
 *   sovereign-ai.js, frame.html, frame.js, worker.js    by name; whoever loads one pins it
 *   map.html, map.css, map.js                           the page of the relay's map
 *   runtime/<name>-<hash>.<ext>                         by hash; worker.js pins them all
 *   <file>.br, <file>.gz                                the same, compressed
 *
 * Trust goes tag -> frame -> worker.js -> runtime: the table {file, sha256, bytes} of everything
 * in runtime/ is compiled into worker.js, which checks what it fetches against it.
 * `--release` compresses harder, for two minutes. What has not changed is not made again.
 */

import { readdir, readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { compress } from './compress.mjs';
import { alone, place, sha256 } from './files.mjs';
import { CDN, LOCK, MODULES, RUNTIME, TABLE } from './paths.mjs';
import { kilobytes, step } from './progress.mjs';
import { pythonArchives } from './python.mjs';
import { mapPage, scripts } from './scripts.mjs';

const release = process.argv.includes('--release');

const VENDORED = {
  pyodide: 'pyodide/pyodide.asm.wasm',
  'ort-jspi': 'onnxruntime-web/dist/ort-wasm-simd-threaded.jspi.wasm',
  'ort-asyncify': 'onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm',
};

/** What one visitor downloads: a browser with JSPI, and one without. */
const VISITORS = {
  jspi: ['pyodide', 'stdlib', 'site', 'node', 'ort-jspi'],
  asyncify: ['pyodide', 'stdlib', 'site', 'node', 'ort-asyncify'],
};

/** Files of former builds stay so long, for the tabs that still run them. */
const FORMER_MS = 24 * 3600 * 1000;

await alone(LOCK, build);
// The interpreter that packed the archives would keep the process alive.
process.exit(0);

async function build() {
  const table = {};
  await step('runtime', async () => {
    for (const [name, source] of Object.entries(VENDORED)) {
      await add(table, name, 'wasm', await readFile(path.join(MODULES, source)));
    }
    const archives = await pythonArchives();
    for (const [name, bytes] of Object.entries(archives)) await add(table, name, 'bin', bytes);
    return `${Object.keys(table).length} files`;
  });
  let built = [];
  await step('scripts', async () => {
    built = await scripts(table);
    return built.join(' ');
  });
  let pages = [];
  await step('map', async () => {
    pages = await mapPage();
    return pages.join(' ');
  });
  await step('sweep', () => sweep(table));
  const files = Object.entries(table).map(([name, { file }]) => [name, path.join(RUNTIME, file)]);
  files.push(...[...built, ...pages].map((name) => [name, path.join(CDN, name)]));
  const sizes = {};
  const squeeze = ([name, file]) =>
    step(`compress ${name}`, async () => {
      sizes[name] = await compress(file, { release });
      return kilobytes(sizes[name]);
    });
  await Promise.all(files.map(squeeze));
  await place(TABLE, JSON.stringify(table));
  await place(path.join(CDN, 'sizes.json'), `${JSON.stringify(report(sizes, built), null, 2)}\n`);
}

async function add(table, name, extension, bytes) {
  const hash = sha256(bytes);
  const file = `${name}-${hash.slice(0, 16)}.${extension}`;
  table[name] = { file, sha256: hash, bytes: bytes.length };
  await place(path.join(RUNTIME, file), bytes);
}

/** Old files of former builds. */
async function sweep(table) {
  const current = new Set(Object.values(table).map((entry) => entry.file));
  let removed = 0;
  for (const name of await readdir(RUNTIME)) {
    if (current.has(name.replace(/\.(br|gz)$/, ''))) continue;
    const file = path.join(RUNTIME, name);
    if (Date.now() - (await stat(file)).mtimeMs < FORMER_MS) continue;
    await rm(file);
    removed += 1;
  }
  return removed ? `${removed} old files removed` : '';
}

function report(sizes, built) {
  const visitors = {};
  for (const [kind, names] of Object.entries(VISITORS)) {
    visitors[kind] = [...names, ...built].reduce((sum, name) => sum + sizes[name], 0);
    console.log(`a visitor downloads (${kind}): ${(visitors[kind] / 1e6).toFixed(2)} MB`);
  }
  return { quality: release ? 'release' : 'development', brotli: sizes, visitors };
}
