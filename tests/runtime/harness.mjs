/** node tests/runtime/harness.mjs OUTFILE: bundles harness.ts as the build bundles the worker. */

import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ROOT, TABLE } from '../../build/runtime/paths.mjs';
import { bundleWorker } from '../../build/runtime/scripts.mjs';

const table = JSON.parse(await readFile(TABLE, 'utf8'));
await bundleWorker(path.join(ROOT, 'tests/runtime/harness.ts'), process.argv[2], table);
