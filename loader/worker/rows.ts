/** Rows of an embedding as numbers: those of hosts/rows.py, which says where they lie. */

import { bytesOf, type PythonBytes } from './buffers';
import { widen } from './expansion';

/** Weights that share one scale. */
const BLOCK = 32;

/**
 * float32 of rows that lie one behind the other in `weights`, at 4 (low half first), 8, 16 or 32
 * bits; `scales` are the float16 ones of their blocks, at 4 and 8 bits.
 */
export function rows(weights: PythonBytes, scales: PythonBytes, bits: number): ArrayBuffer {
  const given = bytesOf(weights);
  const count = (given.byteLength * 8) / bits;
  if (bits === 32) return given.buffer;
  if (bits === 16) return widen(given.buffer, 0, count).buffer;
  const each = widen(bytesOf(scales).buffer, 0, count / BLOCK);
  const out = new Float32Array(count);
  for (let at = 0; at < count; at++) {
    const byte = given[bits === 4 ? at >>> 1 : at] as number;
    const level = bits === 8 ? byte - 128 : (at & 1 ? byte >> 4 : byte & 15) - 8;
    out[at] = level * (each[(at / BLOCK) | 0] as number);
  }
  return out.buffer;
}
