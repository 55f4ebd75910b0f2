/**
 * Weights as the fp32 ones that the expanded graphs read.
 *
 * ONNX Runtime asks for external data tensor by tensor, with `byteLength` and `subarray`, and
 * copies each into its own heap. ExpandedFile answers by making just that tensor: at no time is
 * there more in JavaScript than the file as it came and one fp32 tensor of it.
 */

/** See pyodide_node/model/manifest.py, which has checked that they stay within the file. */
export type ExpandStep =
  | { kind: 'copy'; source: number; target: number; length: number }
  | { kind: 'f16'; source: number; target: number; length: number }
  | {
      kind: 'q4' | 'q8';
      source: number;
      scales: number;
      k: number;
      n: number;
      target: number;
      length: number;
    }
  | {
      kind: 'i8' | 'i8-unit';
      source: number;
      scales: number;
      bits: 4 | 8;
      k: number;
      n: number;
      target: number;
      length: number;
    };

/** Weights that share one scale. */
const BLOCK = 32;
/** Rows done together: 16 floats are the cache line that they share in the transposed result. */
const TILE = 16;

export class ExpandedFile extends Uint8Array<ArrayBuffer> {
  /** Every tensor in its turn: garbage of hundreds of megabytes would wait to be collected. */
  private scratch: ArrayBuffer;

  constructor(
    private readonly file: ArrayBuffer,
    private readonly steps: ExpandStep[],
  ) {
    super(new ArrayBuffer(0));
    this.scratch = new ArrayBuffer(Math.max(...steps.map(({ length }) => length)));
  }

  override get byteLength(): number {
    const last = this.steps.at(-1);
    return last ? last.target + last.length : 0;
  }

  /** Valid until the next call. */
  override subarray(begin = 0, end = this.byteLength): Uint8Array<ArrayBuffer> {
    const exact = this.steps.find((step) => step.target === begin && step.length === end - begin);
    if (exact) return expand(this.file, exact, this.scratch);
    const part = new Uint8Array(end - begin);
    for (const step of this.steps) {
      const from = Math.max(begin, step.target);
      const to = Math.min(end, step.target + step.length);
      if (from >= to) continue;
      const whole = expand(this.file, step, this.scratch);
      part.set(whole.subarray(from - step.target, to - step.target), from - begin);
    }
    return part;
  }

  /** Give its memory back now. */
  close(): void {
    this.scratch = this.scratch.transfer?.(0) ?? new ArrayBuffer(0);
    this.file.transfer?.(0);
  }
}

/** What one step makes, in the first bytes of `room`. */
export function expand(
  file: ArrayBuffer,
  step: ExpandStep,
  room: ArrayBuffer = new ArrayBuffer(step.length),
): Uint8Array<ArrayBuffer> {
  const made = new Uint8Array(room, 0, step.length);
  if (step.kind === 'copy') {
    made.set(new Uint8Array(file, step.source, step.length));
    return made;
  }
  if (step.kind === 'f16') {
    widen(file, step.source, step.length / 4, room);
    return made;
  }
  if (step.kind === 'i8' || step.kind === 'i8-unit') {
    integers(file, step, room);
    return made;
  }
  const { k, n } = step;
  const packed = new Uint8Array(file, step.source, step.kind === 'q4' ? (k * n) / 2 : k * n);
  const scales = widen(file, step.scales, (k * n) / BLOCK);
  const out = new Float32Array(room, 0, k * n);
  const rows = step.kind === 'q4' ? nibbles : bytes;
  for (let row = 0; row < n; row += TILE) {
    rows(packed, scales, out, k, n, row, Math.min(n, row + TILE));
  }
  return made;
}

type Rows = (
  packed: Uint8Array,
  scales: Float32Array,
  out: Float32Array,
  k: number,
  n: number,
  from: number,
  to: number,
) => void;

/** Rows [from, to) of int4[n, k] into columns [from, to) of float32[k, n]. */
const nibbles: Rows = (packed, scales, out, k, n, from, to) => {
  const half = k / 2;
  const blocks = k / BLOCK;
  for (let byte = 0; byte < half; byte++) {
    const block = ((2 * byte) / BLOCK) | 0;
    const even = 2 * byte * n;
    const odd = even + n;
    for (let row = from; row < to; row++) {
      const two = packed[row * half + byte] as number;
      const scale = scales[row * blocks + block] as number;
      out[even + row] = ((two & 15) - 8) * scale;
      out[odd + row] = ((two >> 4) - 8) * scale;
    }
  }
};

/** The same of one byte a weight. */
const bytes: Rows = (packed, scales, out, k, n, from, to) => {
  const blocks = k / BLOCK;
  for (let column = 0; column < k; column++) {
    const block = (column / BLOCK) | 0;
    const at = column * n;
    for (let row = from; row < to; row++) {
      const level = packed[row * k + column] as number;
      out[at + row] = (level - 128) * (scales[row * blocks + block] as number);
    }
  }
};

/** float32 above which there are no halves: adding and taking it away rounds halves to even. */
const ROUND = 3 * 2 ** 22;

/** int8[k, n], or the float32[n] that their rows are multiples of. */
function integers(
  file: ArrayBuffer,
  { kind, source, scales, bits, k, n }: Extract<ExpandStep, { bits: 4 | 8 }>,
  room: ArrayBuffer,
): void {
  const packed = new Uint8Array(file, source, (k * n * bits) / 8);
  const wide = widen(file, scales, (k * n) / BLOCK);
  const units = kind === 'i8' ? new Float32Array(n) : new Float32Array(room, 0, n);
  const out = new Int8Array(room, 0, kind === 'i8' ? k * n : 0);
  const tile = new Float32Array(TILE * k);
  for (let from = 0; from < n; from += TILE) {
    const rows = Math.min(TILE, n - from);
    for (let row = 0; row < rows; row++) units[from + row] = unpack(from + row, row * k) / 127;
    if (kind === 'i8-unit') continue;
    for (let column = 0; column < k; column++) {
      for (let row = 0; row < rows; row++) {
        const unit = units[from + row] || 1;
        const level = Math.fround((tile[row * k + column] as number) / unit);
        out[column * n + from + row] = Math.fround(level + ROUND) - ROUND;
      }
    }
  }

  /** A row's weights into the tile; the largest of them. */
  function unpack(row: number, at: number): number {
    let most = 0;
    for (let column = 0; column < k; column++) {
      const weight = row * k + column;
      const byte = packed[bits === 4 ? weight >>> 1 : weight] as number;
      const level = bits === 8 ? byte - 128 : (weight & 1 ? byte >> 4 : byte & 15) - 8;
      const value = Math.fround(level * (wide[(weight / BLOCK) | 0] as number));
      tile[at + column] = value;
      if (Math.abs(value) > most) most = Math.abs(value);
    }
    return most;
  }
}

let halves: Float32Array | undefined;

/** float16 as float32, by a table of all of them: not every browser has Float16Array. */
export function widen(
  file: ArrayBuffer,
  offset: number,
  count: number,
  room: ArrayBuffer = new ArrayBuffer(4 * count),
): Float32Array<ArrayBuffer> {
  halves ??= Float32Array.from({ length: 1 << 16 }, (_, bits) => half(bits));
  const given = new Uint16Array(file, offset, count);
  const out = new Float32Array(room, 0, count);
  for (let at = 0; at < count; at++) out[at] = halves[given[at] as number] as number;
  return out;
}

/** The number that 16 bits are in IEEE 754. */
function half(bits: number): number {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
}
