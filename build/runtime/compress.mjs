/** A .br and a .gz beside every file, so that a relay serves them without compressing. */

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { place, sha256 } from './files.mjs';
import { CACHE } from './paths.mjs';

const brotli = promisify(zlib.brotliCompress);
const gzip = promisify(zlib.gzip);
const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_LGWIN, BROTLI_PARAM_SIZE_HINT } = zlib.constants;

/** 11 takes two minutes for the engines: made once, for releases; 9 is 12 % larger. */
const RELEASE_QUALITY = 11;
const DEVELOPMENT_QUALITY = 9;
const GZIP_LEVEL = 9;

/** Compresses `file`; returns its size as brotli. Results are kept by content and quality. */
export async function compress(file, { release }) {
  const bytes = await readFile(file);
  const key = path.join(CACHE, 'compressed', sha256(bytes).slice(0, 32));
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
    await place(br, await brotli(bytes, { params }));
  }
  const gz = `${key}.gz`;
  if (!existsSync(gz)) await place(gz, await gzip(bytes, { level: GZIP_LEVEL }));
  const squeezed = await readFile(br);
  await place(`${file}.br`, squeezed);
  await place(`${file}.gz`, await readFile(gz));
  return squeezed.length;
}
