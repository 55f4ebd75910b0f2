/**
 * Blobs by hash in Cache Storage, small values in IndexedDB. Blobs are checked whenever they are
 * read and never enter Python's memory. What is full or denied is simply not kept.
 */

import { Box } from './box';
import { bytesOf, type PythonBytes } from './buffers';
import { entries, read, remove, write } from './database';
import { download } from './download';
import { NodeError } from './errors';
import { sha256 } from './hash';

/** Of a held blob; `used` orders them, so that the least recently used can go first. */
interface Held {
  bytes: number;
  used: number;
}

export class Store {
  private readonly box = new Box('kwaainet-blobs');
  private readonly held = new Map<string, Held>();
  private readonly values = new Map<string, Uint8Array<ArrayBuffer>>();
  private clock = 0;

  private constructor(readonly persistent: boolean) {}

  static async open(): Promise<Store> {
    const works = await new Box('kwaainet-blobs').works();
    const store = new Store(works);
    if (works) await store.recall();
    return store;
  }

  async fetch(url: string, limit: number): Promise<ArrayBuffer> {
    // Manifests and lists change under their URL.
    return download(url, limit, { cache: 'no-cache' });
  }

  has(hash: string): boolean {
    return this.held.has(hash);
  }

  /** Null when absent or damaged. */
  async load(hash: string, size: number): Promise<ArrayBuffer | null> {
    if (!this.held.has(hash)) return null;
    const bytes = await this.box.get(hash);
    if (bytes?.byteLength === size && (await sha256(bytes)) === hash) {
      this.touch(hash, size);
      return bytes;
    }
    await this.drop(hash);
    return null;
  }

  /** Raises IntegrityError, Unreachable. */
  async download(url: string, hash: string, size: number, keep: boolean): Promise<ArrayBuffer> {
    const bytes = await this.verified(url, hash, size, 'default').catch((error) => {
      // A cache on the way may be damaged: ask past it, once.
      if (error.name !== 'IntegrityError') throw error;
      return this.verified(url, hash, size, 'reload');
    });
    if (keep && this.persistent && (await this.box.put(hash, bytes))) this.touch(hash, size);
    return bytes;
  }

  async drop(hash: string): Promise<void> {
    this.held.delete(hash);
    await this.box.drop(hash);
    await remove('blobs', hash).catch(() => {}); // recalled as absent at the next start
  }

  /** JSON of [hash, bytes], least recently used first. */
  list(): string {
    const order = [...this.held].sort(([, a], [, b]) => a.used - b.used);
    return JSON.stringify(order.map(([hash, { bytes }]) => [hash, bytes]));
  }

  async get(name: string): Promise<Uint8Array | null> {
    const here = this.values.get(name);
    if (here) return here;
    return (await read<Uint8Array>('values', name).catch(() => undefined)) ?? null;
  }

  async put(name: string, value: PythonBytes): Promise<void> {
    const bytes = bytesOf(value);
    await write('values', name, bytes).then(
      () => this.values.delete(name),
      () => this.values.set(name, bytes), // denied or full: as long as the worker lives
    );
  }

  private async verified(
    url: string,
    hash: string,
    size: number,
    cache: RequestCache,
  ): Promise<ArrayBuffer> {
    const bytes = await download(url, size, { cache }).catch((error) => {
      if (error.name !== 'StoreError') throw error;
      throw new NodeError('IntegrityError', `${url} is larger than it should be`, error);
    });
    if (bytes.byteLength === size && (await sha256(bytes)) === hash) return bytes;
    throw new NodeError('IntegrityError', `${url} is not what its hash says`);
  }

  private touch(hash: string, bytes: number): void {
    const held = { bytes, used: ++this.clock };
    this.held.set(hash, held);
    write('blobs', hash, held).catch(() => {}); // only the order is lost
  }

  /** What an earlier worker kept. The box is the truth; the table only knows sizes and order. */
  private async recall(): Promise<void> {
    const inBox = new Set(await this.box.keys());
    const known = await entries<Held>('blobs').catch(() => []);
    for (const [hash, held] of known) {
      if (!inBox.delete(hash)) continue;
      this.held.set(hash, held);
      this.clock = Math.max(this.clock, held.used);
    }
    for (const stray of inBox) await this.box.drop(stray); // without a size it cannot be budgeted
  }
}
