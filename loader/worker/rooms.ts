/**
 * Buffers that pieces pass through on their way between network, storage and hashes.
 *
 * What the browser's own interfaces have seen of memory stays theirs until a collection, even when
 * it was transferred away: hundreds of megabytes, when every piece has a buffer of its own.
 */

/** Bytes: pieces are no larger (pyodide_node/model/manifest.py). */
const ROOM = 1 << 20;
/** That wait for the next piece. */
const WAITING = 8;

export class Rooms {
  private readonly free: ArrayBuffer[] = [];

  /** Of at least `size` bytes, which hold anything. */
  readonly take = (size: number): ArrayBuffer =>
    (size <= ROOM && this.free.pop()) || new ArrayBuffer(Math.max(size, ROOM));

  /** For others to use: nobody may read it any more. */
  leave(room: ArrayBuffer): void {
    if (room.byteLength === ROOM && this.free.length < WAITING) this.free.push(room);
  }
}
