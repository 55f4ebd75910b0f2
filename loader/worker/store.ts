/**
 * Pieces by hash in Cache Storage, small values in IndexedDB. Pieces are checked whenever they are
 * read; files made of them never enter Python's memory. What is full or denied is not kept.
 */

import { Box } from './box';
import { bytesOf, type PythonBytes } from './buffers';
import { entries, read, remove, write } from './database';
import { download, stream } from './download';
import { NodeError } from './errors';
import { PieceFile } from './file';
import { sha256 } from './hash';
import { cut, type Piece, total } from './pieces';
import { Rooms } from './rooms';

/** Pieces that may wait to be checked and written. */
const WRITING = 4;

/** Of a held piece; `used` orders them, so that the least recently used can go first. */
interface Held {
  bytes: number;
  used: number;
}

export class Store {
  private readonly box = new Box('kwaainet-blobs');
  private readonly held = new Map<string, Held>();
  /** Pieces that are not kept, until their file is joined. */
  private readonly loose = new Map<string, ArrayBuffer>();
  private readonly pulls = new Map<number, AbortController>();
  /** URLs that gave something wrong. */
  private readonly suspects = new Set<string>();
  private readonly values = new Map<string, Uint8Array<ArrayBuffer>>();
  private readonly rooms = new Rooms();
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

  /** Whether the piece is here, kept or loose. */
  has(hash: string): boolean {
    return this.held.has(hash) || this.loose.has(hash);
  }

  /**
   * Pieces (JSON of Piece[]) that lie one behind the other from byte `offset` of `url` on; -1: they
   * are all of it. `got` is told of each; true if no more came than was asked for.
   *
   * Raises IntegrityError, Unreachable. `cancel(id)` ends it, and `got` is told nothing more.
   */
  async pull(
    id: number,
    url: string,
    offset: number,
    pieces: string,
    keep: boolean,
    got: (hash: string, kept: boolean) => void,
  ): Promise<boolean> {
    const wanted = JSON.parse(pieces) as Piece[];
    const abort = new AbortController();
    this.pulls.set(id, abort);
    const range: [number, number] | undefined =
      offset < 0 ? undefined : [offset, offset + total(wanted) - 1];
    try {
      return await stream(url, { cache: this.cache(url, keep), range, abort }, async (answer) => {
        const skip = range && answer.whole ? offset : 0;
        // Pieces are checked and written while the next ones come: what the browser holds unread
        // when a connection breaks is lost.
        const writing: Promise<void>[] = [];
        try {
          for await (const [hash, bytes] of cut(answer.chunks, skip, wanted, this.rooms.take)) {
            const written = this.accept(url, hash, bytes, keep).then((kept) => {
              if (this.pulls.has(id)) got(hash, kept);
            });
            written.catch(() => {}); // it is awaited, but not at once
            if (writing.push(written) > WRITING) await writing[writing.length - WRITING];
          }
        } finally {
          await Promise.all(writing);
        }
        if (writing.length < wanted.length) throw new NodeError('Unreachable', `${url} broke off`);
        return !(range && answer.whole);
      });
    } finally {
      this.pulls.delete(id);
    }
  }

  cancel(id: number): void {
    this.pulls.get(id)?.abort();
    this.pulls.delete(id);
  }

  /** A piece that a peer sent. Raises IntegrityError. */
  async take(hash: string, piece: PythonBytes, keep: boolean): Promise<boolean> {
    return this.accept('what a peer sent', hash, bytesOf(piece), keep);
  }

  /** A copy of a piece, to be given back; null when absent or damaged. */
  async read(hash: string, size: number): Promise<ArrayBuffer | null> {
    return this.loose.get(hash)?.slice(0) ?? this.kept(hash, size);
  }

  giveBack(piece: ArrayBuffer): void {
    piece.transfer?.(0); // not left to wait for a collection
  }

  /** The file of these pieces (JSON of Piece[]); null when one is absent or damaged. */
  async join(list: string): Promise<PieceFile | null> {
    const pieces = JSON.parse(list) as Piece[];
    const file: ArrayBuffer[] = [];
    for (const [hash, size] of pieces) {
      const piece = await this.read(hash, size);
      if (!piece) return null;
      file.push(piece);
    }
    for (const [hash] of pieces) this.loose.delete(hash);
    return new PieceFile(file);
  }

  async drop(hash: string): Promise<void> {
    this.loose.delete(hash);
    if (!this.held.has(hash)) return;
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

  /** Checks a piece and stores it; whether it was kept. */
  private async accept(
    what: string,
    hash: string,
    bytes: Uint8Array<ArrayBuffer>,
    keep: boolean,
  ): Promise<boolean> {
    if ((await sha256(bytes)) !== hash) {
      this.suspects.add(what);
      throw new NodeError('IntegrityError', `${what} is not what its hash says`);
    }
    if (keep && this.persistent && (await this.box.put(hash, bytes))) {
      this.touch(hash, bytes.byteLength);
      this.rooms.leave(bytes.buffer);
      return true;
    }
    this.loose.set(hash, bytes.slice().buffer);
    this.rooms.leave(bytes.buffer);
    return false;
  }

  /** A copy of a kept piece; null when absent or damaged, and then it is dropped. */
  private async kept(hash: string, size: number): Promise<ArrayBuffer | null> {
    if (!this.held.has(hash)) return null;
    const bytes = await this.box.into(this.rooms.take(size), hash, size);
    const right = bytes && (await sha256(bytes)) === hash;
    const copy = right ? bytes.slice().buffer : null;
    if (bytes) this.rooms.leave(bytes.buffer);
    if (right) this.touch(hash, size);
    else await this.drop(hash);
    return copy;
  }

  /** What is kept here need not lie in the browser's cache too; what was damaged may be there. */
  private cache(url: string, keep: boolean): RequestCache {
    if (this.suspects.delete(url)) return 'reload';
    return keep && this.persistent ? 'no-store' : 'default';
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
