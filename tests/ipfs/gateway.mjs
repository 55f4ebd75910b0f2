/**
 * A Helia node (https://helia.io) that adds a file and serves its blocks as a trustless gateway
 * does: `/ipfs/<cid>?format=raw`. Prints one line of JSON: the file's CID, and the port.
 *
 *   node gateway.mjs FILE [LIE]    with LIE, a bit of every block of a file is wrong
 */

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { unixfs } from '@helia/unixfs';
import { createHeliaLight } from 'helia';
import { fixedSize } from 'ipfs-unixfs-importer/chunker';
import { balanced } from 'ipfs-unixfs-importer/layout';
import { CID } from 'multiformats/cid';

const [file, lie] = process.argv.slice(2);
const helia = createHeliaLight();
const cid = await unixfs(helia).addBytes(await readFile(file), {
  cidVersion: 1,
  rawLeaves: true,
  chunker: fixedSize({ chunkSize: 1 << 20 }),
  layout: balanced({ maxChildrenPerNode: 4096 }),
});

async function block(path) {
  const found = /^\/ipfs\/(\w+)\?format=raw$/.exec(path);
  if (!found) return null;
  const chunks = [];
  // What this node does not have it must not look for elsewhere.
  for await (const chunk of helia.blockstore.get(CID.parse(found[1]), { offline: true })) {
    chunks.push(chunk);
  }
  const bytes = Buffer.concat(chunks);
  if (lie) bytes[bytes.length >> 1] ^= 1;
  return bytes;
}

const server = createServer(async (request, response) => {
  const bytes = await block(request.url).catch(() => null);
  if (!bytes) return response.writeHead(404).end();
  response.writeHead(200, { 'Content-Type': 'application/vnd.ipld.raw' }).end(bytes);
});
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ cid: cid.toString(), port: server.address().port }));
});
