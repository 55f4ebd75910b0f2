/**
 * Files of private models: AES-256-GCM, one segment a piece of 1 MiB, its tag included. The format
 * is that of pyodide_node/model/locked.py.
 */

import { NodeError } from './errors';
import type { PieceFile } from './file';

/** The plain content of file number `file`, whose pieces begin with that number. Raises
 * SealError. */
export async function unlock(
  key: Uint8Array<ArrayBuffer>,
  file: number,
  blob: PieceFile,
  first: number,
): Promise<PieceFile> {
  const iv = new Uint8Array(12);
  const view = new DataView(iv.buffer);
  view.setUint32(0, file);
  try {
    const opens = await crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['decrypt']);
    return await blob.each(async (piece, number) => {
      view.setBigUint64(4, BigInt(first + number));
      // A copy, because only memory that the browser's own interfaces never saw can be given back.
      return (await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, opens, piece)).slice();
    });
  } catch (error) {
    const message = 'a file of this private model does not open with its key';
    throw new NodeError('SealError', message, error);
  }
}
