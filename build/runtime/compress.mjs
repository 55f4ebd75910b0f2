/** A .br and a .gz beside every file, so that a relay serves them without compressing. */

import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { CACHE } from './paths.mjs';
import { sha256 } from './wheels.mjs';

const brotli = promisify(zlib.brotliCompress);
const gzip = promisify(zlib.gzip);
const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_LGWIN, BROTLI_PARAM_SIZE_HINT } = zlib.constants;

/** 11 takes a minute for the engines: made once, for releases; 9 is 8 % larger. */
export const RELEASE_QUALITY = 11;
const DEVELOPMENT_QUALITY = 9;
const GZIP_LEVEL = 9;

/** Compresses `file`; returns its size as brotli. Results are kept by content and quality. */
export async function compress(file, { release }) {
  const bytes = await readFile(file);
  const key = path.join(CACHE, 'compressed', sha256(bytes).slice(0, 32));
  await mkdir(path.dirname(key), { recursive: true });
  const best = `${key}.${RELEASE_QUALITY}.br`;
  const quick = `${key}.${DEVELOPMENT_QUALITY}.br`;
  const br = release || existsSync(best) ? best : quick;
  if (!existsSync(br)) {
    const quality = release ? RELEASE_QUALITY : DEVELOPMENT_QUALITY;
    const params = {
      [BROTLI_PARAM_QUALITY]: quality,
      [BROTLI_PARAM_LGWIN]: 24,
      [BROTLI_PARAM_SIZE_HINT]: bytes.length,
    };
    await writeFile(br, await brotli(bytes, { params }));
  }
  const gz = `${key}.gz`;
  if (!existsSync(gz)) await writeFile(gz, await gzip(bytes, { level: GZIP_LEVEL }));
  await copyFile(br, `${file}.br`);
  await copyFile(gz, `${file}.gz`);
  return (await readFile(br)).length;
}
