/**
 * Builds all that the CDN serves into dist/cdn:  node build/runtime/bundle.mjs [--release]
 *
 *   sovereign-ai.js, frame.html, frame.js, worker.js    by name; whoever loads one pins it
 *   runtime/<name>-<hash>.<ext>                         by hash; worker.js pins them all
 *   <file>.br, <file>.gz                                the same, compressed
 *
 * Trust goes tag -> frame -> worker.js -> runtime: the table {file, sha256, bytes} of everything
 * in runtime/ is compiled into worker.js, which checks what it fetches against it.
 * `--release` compresses harder. What has not changed is not made again.
 */

import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { compress } from './compress.mjs';
import { CDN, MODULES, RUNTIME, TABLE } from './paths.mjs';
import { kilobytes, step } from './progress.mjs';
import { pythonArchives } from './python.mjs';
import { scripts } from './scripts.mjs';
import { sha256 } from './wheels.mjs';

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

const table = {};
const sizes = {};

await mkdir(RUNTIME, { recursive: true });
await step('runtime', async () => {
  for (const [name, source] of Object.entries(VENDORED)) {
    await place(name, 'wasm', await readFile(path.join(MODULES, source)));
  }
  const archives = await pythonArchives();
  for (const [name, bytes] of Object.entries(archives)) await place(name, 'bin', bytes);
  return `${Object.keys(table).length} files`;
});
let built = [];
await step('scripts', async () => {
  built = await scripts(table);
  return built.join(' ');
});
await step('sweep', sweep);
for (const [name, entry] of Object.entries(table)) {
  await step(`compress ${name}`, async () => {
    sizes[name] = await compress(path.join(RUNTIME, entry.file), { release });
    return kilobytes(sizes[name]);
  });
}
for (const name of built) {
  await step(`compress ${name}`, async () => {
    sizes[name] = await compress(path.join(CDN, name), { release });
    return kilobytes(sizes[name]);
  });
}
await writeFile(TABLE, JSON.stringify(table));
await writeFile(path.join(CDN, 'sizes.json'), `${JSON.stringify(report(), null, 2)}\n`);
// The interpreter that packed the archives would keep the process alive.
process.exit(0);

async function place(name, extension, bytes) {
  const hash = sha256(bytes);
  const file = `${name}-${hash.slice(0, 16)}.${extension}`;
  table[name] = { file, sha256: hash, bytes: bytes.length };
  await writeFile(path.join(RUNTIME, file), bytes);
}

/** Files of former builds, which nothing names any more. */
async function sweep() {
  const current = new Set(Object.values(table).map((entry) => entry.file));
  const stale = (await readdir(RUNTIME)).filter(
    (name) => !current.has(name.replace(/\.(br|gz)$/, '')),
  );
  await Promise.all(stale.map((name) => rm(path.join(RUNTIME, name))));
  return stale.length ? `${stale.length} old files removed` : '';
}

function report() {
  const visitors = {};
  for (const [kind, names] of Object.entries(VISITORS)) {
    visitors[kind] = [...names, ...built].reduce((sum, name) => sum + sizes[name], 0);
    console.log(`a visitor downloads (${kind}): ${(visitors[kind] / 1e6).toFixed(2)} MB`);
  }
  return { quality: release ? 'release' : 'development', brotli: sizes, visitors };
}
