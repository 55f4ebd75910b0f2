/** Files that appear whole or not at all, and a lock: several builds may run at once. */

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';

const WAIT_MS = 200;

export function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Write `bytes` unless the file has them already. */
export async function place(file, bytes) {
  if (existsSync(file) && Buffer.compare(await readFile(file), Buffer.from(bytes)) === 0) return;
  await mkdir(path.dirname(file), { recursive: true });
  const partial = `${file}.${process.pid}.partial`;
  await writeFile(partial, bytes);
  await rename(partial, file);
}

/** Run `work` while no other build of this checkout runs. */
export async function alone(lock, work) {
  await mkdir(path.dirname(lock), { recursive: true });
  let told = false;
  for (;;) {
    try {
      await writeFile(lock, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    if (await abandoned(lock)) {
      await rm(lock, { force: true });
      continue;
    }
    if (!told) console.log('another build is running: waiting for it');
    told = true;
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  }
  try {
    return await work();
  } finally {
    await rm(lock, { force: true });
  }
}

/** Whether whoever took the lock is gone. */
async function abandoned(lock) {
  try {
    const pid = Number(await readFile(lock, 'utf8'));
    // Between creating the file and writing to it there is a moment without a number.
    if (!pid) return Date.now() - (await stat(lock)).mtimeMs > 5000;
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return error.code === 'ESRCH';
  }
}
