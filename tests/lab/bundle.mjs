/** node tests/lab/bundle.mjs FOLDER: the scripts of a member in a tab, bundled as the build does. */

import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ROOT, TABLE } from '../../build/runtime/paths.mjs';
import { bundleWorker } from '../../build/runtime/scripts.mjs';

const folder = process.argv[2];
const table = JSON.parse(await readFile(TABLE, 'utf8'));
await bundleWorker(
  path.join(ROOT, 'tests/lab/tab_worker.ts'),
  path.join(folder, 'lab-worker.js'),
  table,
);
await bundleWorker(path.join(ROOT, 'tests/lab/tab.ts'), path.join(folder, 'lab.js'), table);
await writeFile(
  path.join(folder, 'lab.html'),
  '<!doctype html><title>lab</title><script src="lab.js"></script>\n',
);
