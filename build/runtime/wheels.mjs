/** Python wheels for the tab, by pip, pinned by sha256 in wheels.json, kept in dist/cache. */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { sha256 } from './files.mjs';
import { CACHE, HERE, ROOT } from './paths.mjs';

const run = promisify(execFile);
const PYTHON = '3.14';

/** The pinned wheels as [{file, bytes}]; downloads what the cache lacks. */
export async function wheels() {
  const pins = JSON.parse(await readFile(path.join(HERE, 'wheels.json'), 'utf8'));
  const folder = path.join(CACHE, 'wheels');
  await mkdir(folder, { recursive: true });
  const found = [];
  for (const pin of pins) {
    const file = path.join(folder, pin.file);
    if (!existsSync(file)) await download(pin, folder);
    const bytes = await readFile(file);
    if (sha256(bytes) !== pin.sha256) {
      await rm(file);
      throw new Error(`${pin.file} has sha256 ${sha256(bytes)}, not the pinned ${pin.sha256}`);
    }
    found.push({ file: pin.file, sha256: pin.sha256, bytes });
  }
  return found;
}

async function download(pin, folder) {
  const venv = path.join(ROOT, '.venv/bin/python');
  const python = process.env.PYTHON ?? (existsSync(venv) ? venv : 'python3');
  const options = ['--no-deps', '--only-binary=:all:', '--python-version', PYTHON, '-q'];
  await run(python, [
    ...['-m', 'pip', 'download', '--disable-pip-version-check', '-d', folder],
    ...options,
    ...['--platform', pin.platform, `${pin.name}==${pin.version}`],
  ]);
}
