/**
 * Keys and values of one session over some blocks, in the engine's own memory: on the GPU, or in
 * its WASM heap. Each is given to the graph as `past` and as `present` at once, so that a step
 * writes its own positions and copies nothing. They have room for `capacity` positions; which
 * ones count the graph learns from `seqlens_k`, so going back is a smaller position.
 */

import * as ort from 'onnxruntime-web/webgpu';
import { NodeError } from './errors';
import { engineModule } from './supply';

export interface KvShape {
  blocks: number;
  heads: number;
  capacity: number;
  size: number;
  /** float16 instead of float32; only on a GPU. */
  half: boolean;
}

export interface KvCache {
  /** [key, value] of a block; valid until the next await. */
  block(index: number): readonly [ort.Tensor, ort.Tensor];
  close(): void;
}

const dims = ({ heads, capacity, size }: KvShape): number[] => [1, heads, capacity, size];
const bytes = ({ heads, capacity, size, half }: KvShape): number =>
  (half ? 2 : 4) * heads * capacity * size;

type Pair = readonly [ort.Tensor, ort.Tensor];

/** In the WASM heap; a patch of ONNX Runtime makes it use such tensors where they are. */
export class HeapCache implements KvCache {
  private pointer: number;
  private buffer: ArrayBuffer | undefined;
  private pairs: Pair[] = [];

  constructor(private readonly shape: KvShape) {
    const size = 2 * shape.blocks * bytes(shape);
    this.pointer = engineModule()._malloc(size);
    if (!this.pointer) {
      throw new NodeError('BudgetExceeded', `no memory for a cache of ${size} bytes`);
    }
    engineModule().HEAPU8.fill(0, this.pointer, this.pointer + size);
  }

  block(index: number): Pair {
    if (!this.pointer) throw new NodeError('EngineError', 'the cache has been closed');
    const { buffer } = engineModule().HEAPU8;
    if (this.buffer !== buffer) {
      // First use, or the heap has grown and with it moved.
      this.buffer = buffer;
      this.pairs = Array.from({ length: this.shape.blocks }, (_, block) =>
        this.pair(buffer, block),
      );
    }
    return this.pairs[index] as Pair;
  }

  close(): void {
    if (this.pointer) engineModule()._free(this.pointer);
    this.pointer = 0;
    this.pairs = [];
    this.buffer = undefined;
  }

  private pair(buffer: ArrayBuffer, block: number): Pair {
    const each = bytes(this.shape);
    const at = (part: number): ort.Tensor => {
      const view = new Float32Array(buffer, this.pointer + (2 * block + part) * each, each / 4);
      return new ort.Tensor('float32', view, dims(this.shape));
    };
    return [at(0), at(1)];
  }
}

export class GpuCache implements KvCache {
  private pairs: Pair[];

  constructor(device: GPUDevice, shape: KvShape) {
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const usage = STORAGE | COPY_SRC | COPY_DST;
    const make = (): ort.Tensor => {
      const buffer = device.createBuffer({ size: bytes(shape), usage });
      return ort.Tensor.fromGpuBuffer(buffer, {
        dataType: shape.half ? 'float16' : 'float32',
        dims: dims(shape),
        dispose: () => buffer.destroy(),
      });
    };
    this.pairs = Array.from({ length: shape.blocks }, () => [make(), make()] as const);
  }

  block(index: number): Pair {
    const pair = this.pairs[index];
    if (!pair) throw new NodeError('EngineError', 'the cache has been closed');
    return pair;
  }

  close(): void {
    for (const tensor of this.pairs.splice(0).flat()) tensor.dispose();
  }
}
