/** Bytes across the border between Python and JavaScript. */

import type { PyBuffer } from 'pyodide/ffi';

/** A Python object with the buffer protocol, as Pyodide hands it over. */
export type PythonBytes = PyBuffer | Uint8Array<ArrayBuffer>;

/**
 * A copy of what Python passed. A view would be faster and wrong: it dies when Python's memory
 * grows, and that may happen at every await.
 */
export function bytesOf(data: PythonBytes): Uint8Array<ArrayBuffer> {
  if (data instanceof Uint8Array) return data.slice();
  const buffer = data.getBuffer('u8');
  try {
    return buffer.data.slice() as Uint8Array<ArrayBuffer>;
  } finally {
    buffer.release();
  }
}

/** The same, as float32: a copy begins aligned wherever Python's bytes lie. */
export function floatsOf(data: PythonBytes): Float32Array<ArrayBuffer> {
  return new Float32Array(bytesOf(data).buffer);
}
