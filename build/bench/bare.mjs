/** Bundles bare.ts for the bench, with the engine's own WASM beside it: node bare.mjs OUT_DIR */

import { copyFile, mkdir } from 'node:fs/promises';
import path from 'node:path';
import esbuild from 'esbuild';

const out = process.argv[2];
const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const engine = path.join(here, '../../node_modules/onnxruntime-web/dist');

await mkdir(out, { recursive: true });
await esbuild.build({
  entryPoints: [path.join(here, 'bare.ts')],
  outfile: path.join(out, 'bare.js'),
  bundle: true,
  format: 'esm',
  target: 'es2022',
  external: ['node:*', 'fs', 'path', 'url', 'module', 'worker_threads', 'os'],
  logLevel: 'warning',
});
await copyFile(
  path.join(engine, 'ort-wasm-simd-threaded.wasm'),
  path.join(out, 'ort-wasm-simd-threaded.wasm'),
);
