/**
 * Files of private models: AES-256-GCM, one segment a piece of 1 MiB, its tag included. The format
 * is that of pyodide_node/model/locked.py.
 */

import { NodeError } from './errors';

const PIECE = 1 << 20;
const TAG = 16;

/** The plain content of file number `file`. Raises SealError. */
export async function unlock(
  key: Uint8Array<ArrayBuffer>,
  file: number,
  blob: ArrayBuffer,
): Promise<ArrayBuffer> {
  const pieces = Math.ceil(blob.byteLength / PIECE);
  const plain = new Uint8Array(Math.max(0, blob.byteLength - pieces * TAG));
  const iv = new Uint8Array(12);
  const view = new DataView(iv.buffer);
  view.setUint32(0, file);
  try {
    const opens = await crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['decrypt']);
    for (let piece = 0; piece < pieces; piece++) {
      view.setBigUint64(4, BigInt(piece));
      const sealed = new Uint8Array(
        blob,
        piece * PIECE,
        Math.min(PIECE, blob.byteLength - piece * PIECE),
      );
      const open = await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, opens, sealed);
      plain.set(new Uint8Array(open), piece * (PIECE - TAG));
    }
  } catch (error) {
    const message = 'a file of this private model does not open with its key';
    throw new NodeError('SealError', message, error);
  }
  return plain.buffer;
}
