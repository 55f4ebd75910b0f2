/** Decoding with nothing but onnxruntime-web, as its documentation does it: the yardstick. */

import * as ort from 'onnxruntime-web/webgpu';
import type { Piece } from '../../loader/worker/engine';

/** Milliseconds of `count` steps of one position, keys and values handed from run to run. */
export async function bareDecode(
  { blocks, session }: Piece,
  heads: number,
  size: number,
  width: number,
  count: number,
): Promise<number> {
  let past: Record<string, ort.Tensor> = {};
  for (let block = 0; block < blocks; block++) {
    for (const part of ['key', 'value']) {
      past[`past_${block}_${part}`] = new ort.Tensor('float32', [], [1, heads, 0, size]);
    }
  }
  const began = performance.now();
  for (let position = 0; position < count; position++) {
    const out = await session.run({
      hidden_in: new ort.Tensor('float32', new Float32Array(width).fill(0.5), [1, 1, width]),
      seqlens_k: new ort.Tensor('int32', Int32Array.of(position), [1]),
      total_sequence_length: new ort.Tensor('int32', Int32Array.of(position + 1), []),
      ...past,
    });
    past = {};
    for (const [name, tensor] of Object.entries(out)) {
      if (name !== 'hidden_out') past[name.replace('present', 'past')] = tensor;
    }
  }
  return performance.now() - began;
}
