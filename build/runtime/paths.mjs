/** Where the build reads and writes, relative to the repository. */

import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const CDN = path.join(ROOT, 'dist/cdn');
export const RUNTIME = path.join(CDN, 'runtime');
export const CACHE = path.join(ROOT, 'dist/cache');
/** The table that was compiled into worker.js. */
export const TABLE = path.join(CACHE, 'runtime-table.json');
/** Held by the build that runs. */
export const LOCK = path.join(CACHE, 'build.lock');
export const MODULES = path.join(ROOT, 'node_modules');
export const HERE = path.join(ROOT, 'build/runtime');
