/** Files as lists of pieces, each checked by its own hash while the file is on its way. */

/** sha256 in hex, and bytes. */
export type Piece = [hash: string, size: number];

/**
 * The pieces that lie one behind the other in `chunks`, from byte `skip` on; fewer if it ends. Each
 * is put at the start of what `room` gives for it.
 */
export async function* cut(
  chunks: AsyncIterable<Uint8Array>,
  skip: number,
  pieces: Piece[],
  room: (size: number) => ArrayBuffer,
): AsyncGenerator<[string, Uint8Array<ArrayBuffer>]> {
  const waiting = pieces.values();
  let next = waiting.next();
  if (next.done) return;
  let [hash, size] = next.value;
  let piece = new Uint8Array(room(size), 0, size);
  let at = 0;
  let ahead = skip;
  for await (const chunk of chunks) {
    let from = Math.min(ahead, chunk.byteLength);
    ahead -= from;
    while (from < chunk.byteLength) {
      const part = chunk.subarray(from, from + size - at);
      piece.set(part, at);
      at += part.byteLength;
      from += part.byteLength;
      if (at < size) continue;
      yield [hash, piece];
      next = waiting.next();
      if (next.done) return;
      [hash, size] = next.value;
      piece = new Uint8Array(room(size), 0, size);
      at = 0;
    }
  }
}

export function total(pieces: Piece[]): number {
  return pieces.reduce((sum, [, size]) => sum + size, 0);
}
