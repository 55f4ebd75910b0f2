/**
 * The tab's tokenizer under Node: one JSON request a line, one answer a line.
 *   {load: "tokenizer.json's text"} | {encode: [text]} | {decode: [[id]]}
 */

import { createInterface } from 'node:readline';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import esbuild from 'esbuild';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const outfile = process.argv[2];
await esbuild.build({
  entryPoints: [path.join(root, 'loader/worker/tokenizer.ts')],
  outfile,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  logLevel: 'warning',
});
const { Tokenizer } = await import(pathToFileURL(outfile).href);

let tokenizer;
const does = {
  load: (text) => {
    tokenizer = new Tokenizer(new TextEncoder().encode(text).buffer);
    return tokenizer.specialTokens;
  },
  encode: (texts) => texts.map((text) => tokenizer.encode(text)),
  decode: (lists) => lists.map((ids) => tokenizer.decode(ids)),
};
for await (const line of createInterface({ input: process.stdin })) {
  const [[name, argument]] = Object.entries(JSON.parse(line));
  process.stdout.write(`${JSON.stringify(does[name](argument))}\n`);
}
