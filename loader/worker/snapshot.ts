/**
 * A memory snapshot of the interpreter after its imports, made at the first start and kept in
 * Cache Storage: a restarted worker has Python back in a tenth of the time.
 *
 * It is bound by name to the very interpreter and library it was made with, and stored with its
 * own hash in front: a damaged one is dropped, and the start is then a cold one.
 */

import { Box } from './box';
import { sha256 } from './hash';
import { runtimeTable } from './runtime_files';

const HASH_BYTES = 64;
/** Raised whenever what is imported before the snapshot changes. */
const RECIPE = 2;

export class Snapshot {
  private readonly box = new Box('kwaainet-snapshot');
  private readonly name = ['pyodide', 'stdlib']
    .map((file) => runtimeTable[file]?.sha256.slice(0, 16))
    .concat(String(RECIPE))
    .join('-');

  async load(): Promise<Uint8Array | null> {
    const stored = await this.box.get(this.name);
    if (!stored) return null;
    const hash = new TextDecoder().decode(new Uint8Array(stored, 0, HASH_BYTES));
    const memory = new Uint8Array(stored, HASH_BYTES);
    if ((await sha256(memory)) === hash) return memory;
    await this.drop();
    return null;
  }

  async save(memory: Uint8Array<ArrayBuffer>): Promise<boolean> {
    for (const key of await this.box.keys()) if (key !== this.name) await this.box.drop(key);
    const hash = new TextEncoder().encode(await sha256(memory));
    const stored = new Uint8Array(HASH_BYTES + memory.byteLength);
    stored.set(hash);
    stored.set(memory, HASH_BYTES);
    return this.box.put(this.name, stored);
  }

  async drop(): Promise<void> {
    await this.box.drop(this.name);
  }
}
