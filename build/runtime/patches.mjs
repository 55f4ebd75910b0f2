/**
 * The few places where vendored scripts need to know that they live in one classic bundle.
 * Every patch must apply exactly as often as it says, or the build fails: a new version of a
 * package is then looked at by a person.
 */

import { readFile } from 'node:fs/promises';

/** What pyodide.mjs and onnxruntime-web ask for by URL comes from here instead, verified. */
const SUPPLY = 'kwaainet:supply';

const PATCHES = [
  {
    file: /node_modules\/pyodide\/pyodide\.mjs$/,
    prefix: `import { binary as __binary, refused as __refused } from '${SUPPLY}';`,
    edits: [
      // Pyodide refuses classic workers because it wants import(); all it would import is here.
      [/if\(\w+&&\w+\(\)\)throw new Error\("Classic web workers are not supported"\);/, '', 1],
      // Its two files have been fetched and verified before it starts.
      [
        /let n=new URL\((\w),location\);return\{response:fetch\(n,\w\?\{integrity:\w\}:\{\}\)\}/,
        'return{binary:__binary($1)}',
        1,
      ],
      // A failed instantiation is only logged, and loadPyodide() then never settles.
      [/console\.warn\("wasm instantiation failed!"\),console\.warn\((\w)\)/, '__refused($1)', 1],
    ],
  },
  {
    file: /node_modules\/onnxruntime-web\/dist\/ort\.webgpu\.min\.mjs$/,
    prefix: `import { glue as __glue } from '${SUPPLY}';`,
    edits: [
      // import() is denied in service workers: hand over the glue that is bundled.
      [
        /await import\(\/\*webpackIgnore:true\*\/ ?\/\*@vite-ignore\*\/(\w)\)/,
        'await __glue($1)',
        1,
      ],
      // Tensors that already lie in the engine's own memory (KV caches) are used in place.
      [
        /(\w)=(\w)\.byteLength,(\w)=(\w)\._malloc\(\1\),(\w)\.push\(\3\),\4\.HEAPU8\.set\(new Uint8Array\(\2\.buffer,\2\.byteOffset,\1\),\3\)/g,
        '$1=$2.byteLength,$2.buffer===$4.HEAPU8.buffer?$3=$2.byteOffset:($3=$4._malloc($1),$5.push($3),$4.HEAPU8.set(new Uint8Array($2.buffer,$2.byteOffset,$1),$3))',
        2,
      ],
    ],
  },
  {
    file: /node_modules\/onnxruntime-web\/dist\/ort-wasm-simd-threaded\.(jspi|asyncify)\.mjs$/,
    prefix: '',
    edits: [
      // Threads of Node's; a top-level await has no place in a classic script.
      [
        /if\(isNode\)isPthread=\(await import\("worker_threads"\)\)\.workerData==="em-pthread";/,
        '',
        1,
      ],
    ],
  },
];

export function patches(supply) {
  return {
    name: 'patches',
    setup(build) {
      build.onResolve({ filter: new RegExp(`^${SUPPLY}$`) }, () => ({ path: supply }));
      for (const { file, prefix, edits } of PATCHES) {
        build.onLoad({ filter: file }, async ({ path }) => {
          let contents = await readFile(path, 'utf8');
          for (const [pattern, replacement, times] of edits) {
            contents = apply(contents, pattern, replacement, times, path);
          }
          return { contents: prefix + contents, loader: 'js' };
        });
      }
    },
  };
}

function apply(contents, pattern, replacement, times, path) {
  const every = new RegExp(pattern.source, 'g');
  const found = contents.match(every)?.length ?? 0;
  if (found !== times) {
    throw new Error(`${path}: ${pattern} matches ${found} times, not ${times}; look at it again`);
  }
  return contents.replace(every, replacement);
}
