/** Bundles TypeScript into the scripts that the CDN serves, and their pages. */

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import esbuild from 'esbuild';
import { place } from './files.mjs';
import { patches } from './patches.mjs';
import { CDN, ROOT } from './paths.mjs';

/** Where a classic script was loaded from: what import.meta.url is in a module. */
const SCRIPT_URL = `var __scriptUrl=(()=>{try{throw new Error()}catch(e){
const m=/((?:https?|blob):[^\\s)@]+?):\\d+:\\d+/.exec(e.stack||'');return m?m[1]:self.location.href}})();`;

/** Only ever reached on Node, where nothing of this runs. */
const NODE_ONLY = ['node:*', 'fs', 'path', 'url', 'module', 'worker_threads', 'os', 'crypto', 'vm'];

const COMMON = {
  bundle: true,
  format: 'iife',
  target: 'es2022',
  minify: true,
  legalComments: 'none',
  logLevel: 'warning',
};

/** name -> entry; the worker gets the table of runtime files compiled in. */
const ENTRIES = {
  'sovereign-ai': 'loader/tag/index.ts',
  frame: 'loader/frame/index.ts',
  worker: 'loader/worker/index.ts',
};

/** The map's page: not of what a visitor of a site downloads. */
const MAP = ['map.html', 'map.css', 'map.js'];

export async function mapPage() {
  const from = path.join(ROOT, 'loader/map');
  await place(path.join(CDN, 'map.html'), await readFile(path.join(from, 'map.html')));
  await bundle({ entryPoints: [path.join(from, 'map.css')] }, path.join(CDN, 'map.css'));
  await bundle({ entryPoints: [path.join(from, 'index.ts')] }, path.join(CDN, 'map.js'));
  return MAP;
}

export async function scripts(table) {
  const made = [];
  for (const [name, entry] of Object.entries(ENTRIES)) {
    const from = path.join(ROOT, entry);
    if (!existsSync(from)) {
      console.warn(`${entry} does not exist yet: ${name}.js is not built`);
      continue;
    }
    const outfile = path.join(CDN, `${name}.js`);
    if (name === 'worker') await bundleWorker(from, outfile, table);
    else await bundle({ entryPoints: [from] }, outfile);
    made.push(`${name}.js`);
  }
  const page = path.join(ROOT, 'loader/frame/frame.html');
  if (existsSync(page)) {
    await place(path.join(CDN, 'frame.html'), await readFile(page));
    made.push('frame.html');
  }
  return made;
}

/** A worker script with `table`, {name: {file, sha256, bytes}}, compiled in. */
export async function bundleWorker(entry, outfile, table) {
  const options = {
    entryPoints: [entry],
    external: [...NODE_ONLY, 'child_process', 'ws'],
    loader: { '.py': 'text' },
    conditions: ['onnxruntime-web-use-extern-wasm'],
    define: {
      'import.meta.url': '__scriptUrl',
      'globalThis.process': 'undefined', // drops what vendored scripts do on Node
      __RUNTIME_TABLE__: JSON.stringify(table),
    },
    banner: { js: SCRIPT_URL },
    plugins: [patches(path.join(ROOT, 'loader/worker/supply.ts'))],
  };
  await bundle(options, outfile);
}

async function bundle(options, outfile) {
  const { outputFiles } = await esbuild.build({ ...COMMON, ...options, outfile, write: false });
  await place(outfile, outputFiles[0].contents);
}
