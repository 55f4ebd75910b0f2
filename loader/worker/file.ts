/** Files as the pieces that they came in: made whole, they would lie in memory twice. */

export class PieceFile {
  readonly byteLength: number;

  /** Takes the pieces over; all but the last are of one size. */
  constructor(private readonly pieces: ArrayBuffer[]) {
    this.byteLength = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** One buffer of it all; the file is gone afterwards. */
  whole(): ArrayBuffer {
    const only = this.pieces.length === 1 && this.pieces[0];
    if (only) return only;
    const whole = new Uint8Array(this.byteLength);
    let at = 0;
    for (const [number, piece] of this.pieces.entries()) {
      whole.set(new Uint8Array(piece), at);
      at += piece.byteLength;
      giveBack(this.pieces, number);
    }
    return whole.buffer;
  }

  /** The file of what `change` makes of each piece in its turn; this one is gone afterwards. */
  async each(
    change: (piece: ArrayBuffer, number: number) => Promise<ArrayBuffer>,
  ): Promise<PieceFile> {
    const made: ArrayBuffer[] = [];
    for (const [number, piece] of this.pieces.entries()) {
      made.push(await change(piece, number));
      giveBack(this.pieces, number);
    }
    return new PieceFile(made);
  }

  /** For ONNX Runtime, once; see ReadOnce. */
  readOnce(): ReadOnce {
    return new ReadOnce(this.pieces, this.byteLength);
  }
}

/** A file as the bridge is given one. */
export type FileBytes = PieceFile | ArrayBuffer | Uint8Array<ArrayBuffer>;

export function fileOf(bytes: FileBytes): PieceFile {
  if (bytes instanceof PieceFile) return bytes;
  return new PieceFile([bytes instanceof Uint8Array ? bytes.slice().buffer : bytes]);
}

/**
 * ONNX Runtime asks for external data tensor by tensor, with `byteLength` and `subarray`, and
 * copies each to where it computes. A piece is given back as soon as all of it has been asked for:
 * so a file and the engine's copy of it never lie in memory together.
 */
export class ReadOnce extends Uint8Array<ArrayBuffer> {
  /** Every tensor in its turn. */
  private scratch = new ArrayBuffer(0);
  /** Bytes of each piece that have not been asked for yet. */
  private readonly left: number[];
  private readonly size: number;

  constructor(
    private readonly pieces: ArrayBuffer[],
    private readonly total: number,
  ) {
    super(new ArrayBuffer(0));
    this.size = pieces[0]?.byteLength ?? 0;
    this.left = pieces.map(({ byteLength }) => byteLength);
  }

  override get byteLength(): number {
    return this.total;
  }

  /** Valid until the next call. */
  override subarray(begin = 0, end = this.total): Uint8Array<ArrayBuffer> {
    if (this.scratch.byteLength < end - begin) {
      this.scratch.transfer?.(0);
      this.scratch = new ArrayBuffer(end - begin);
    }
    const out = new Uint8Array(this.scratch, 0, end - begin);
    for (let at = begin; at < end; ) {
      const number = Math.floor(at / this.size);
      const piece = this.pieces[number] as ArrayBuffer;
      const from = at - number * this.size;
      const count = Math.min(end - at, piece.byteLength - from); // one given back has no bytes
      if (count <= 0) throw new Error('the engine asks for weights a second time');
      out.set(new Uint8Array(piece, from, count), at - begin);
      at += count;
      this.left[number] = (this.left[number] as number) - count;
      if (this.left[number] === 0) giveBack(this.pieces, number);
    }
    return out;
  }

  /** Give back what was never asked for, too. */
  close(): void {
    for (const number of this.pieces.keys()) giveBack(this.pieces, number);
    this.scratch.transfer?.(0);
    this.scratch = new ArrayBuffer(0);
  }
}

/** At once: garbage collection would let several lie about. */
function giveBack(pieces: ArrayBuffer[], number: number): void {
  const piece = pieces[number];
  pieces[number] = new ArrayBuffer(0);
  if (piece?.byteLength) piece.transfer?.(0);
}
