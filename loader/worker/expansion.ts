/**
 * int4 weights as the fp32 ones that the "wasm-expanded" graphs read.
 *
 * ONNX Runtime asks for external data tensor by tensor, with `byteLength` and `subarray`, and
 * copies each into its own heap. ExpandedFile answers by making just that tensor: at no time is
 * there more in JavaScript than the int4 file and one fp32 tensor of it.
 */

/** See pyodide_node/inference/manifest.py, which has checked that they stay within the file. */
export type ExpandStep =
  | { kind: 'copy'; source: number; target: number; length: number }
  | {
      kind: 'q4';
      source: number;
      scales: number;
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
  constructor(
    private readonly file: ArrayBuffer,
    private readonly steps: ExpandStep[],
  ) {
    super(new ArrayBuffer(0));
  }

  override get byteLength(): number {
    const last = this.steps.at(-1);
    return last ? last.target + last.length : 0;
  }

  override subarray(begin = 0, end = this.byteLength): Uint8Array<ArrayBuffer> {
    const exact = this.steps.find((step) => step.target === begin && step.length === end - begin);
    if (exact) return new Uint8Array(expand(this.file, exact));
    const part = new Uint8Array(end - begin);
    for (const step of this.steps) {
      const from = Math.max(begin, step.target);
      const to = Math.min(end, step.target + step.length);
      if (from >= to) continue;
      const whole = new Uint8Array(expand(this.file, step));
      part.set(whole.subarray(from - step.target, to - step.target), from - begin);
    }
    return part;
  }
}

/** What one step makes. */
export function expand(file: ArrayBuffer, step: ExpandStep): ArrayBuffer {
  if (step.kind === 'copy') return file.slice(step.source, step.source + step.length);
  const { k, n } = step;
  const packed = new Uint8Array(file, step.source, (k * n) / 2);
  const scales = new Float32Array(file, step.scales, (k * n) / BLOCK);
  const out = new Float32Array(k * n);
  for (let row = 0; row < n; row += TILE) {
    dequantise(packed, scales, out, k, n, row, Math.min(n, row + TILE));
  }
  return out.buffer;
}

/** Rows [from, to) of int4[n, k] into columns [from, to) of float32[k, n]. */
function dequantise(
  packed: Uint8Array,
  scales: Float32Array,
  out: Float32Array,
  k: number,
  n: number,
  from: number,
  to: number,
): void {
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
}
