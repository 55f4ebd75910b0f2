/**
 * ONNX Runtime: sessions over blocks, embedding and head; one run at a time.
 *
 * All decisions (which blocks, where to split, what fits) are Python's; see hosts/browser/.
 */

import * as ort from 'onnxruntime-web/webgpu';
import { bytesOf, floatsOf, type PythonBytes } from './buffers';
import { asNodeError, NodeError } from './errors';
import { ExpandedFile, type ExpandStep } from './expansion';
import { type FileBytes, fileOf } from './file';
import { GpuCache, HeapCache, type KvCache, type KvShape } from './kv_cache';
import type { RuntimeFiles } from './runtime_files';
import { engineFile, engineModule } from './supply';

type Provider = 'webgpu' | 'wasm';

/** Weight files that have an expanded form; the rotary table and the embedding are as they are. */
const EXPANDED = /^(layer\d+|head)\.bin$/;

/** A session over `blocks` blocks. */
export interface Piece {
  readonly blocks: number;
  readonly session: ort.InferenceSession;
}

/** `half`: it computes in float16 too. */
export interface Gpu {
  readonly kind: 'none' | 'software' | 'hardware';
  readonly half: boolean;
}

/** Whether there is a GPU, and a real one: a software adapter is slower than WASM. */
export async function detectGpu(): Promise<Gpu> {
  try {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' });
    if (!adapter) return { kind: 'none', half: false };
    const kind = adapter.info.isFallbackAdapter ? 'software' : 'hardware';
    return { kind, half: adapter.features.has('shader-f16') };
  } catch {
    return { kind: 'none', half: false };
  }
}

export class Engine {
  private ready: Promise<void> | undefined;
  private last: Promise<unknown> = Promise.resolve();
  private device: GPUDevice | undefined;
  private lost: string | undefined;

  constructor(
    private readonly provider: Provider,
    private readonly files: RuntimeFiles,
  ) {}

  /**
   * A model's graph as a session. `data` are the files that the graph names; layers and heads go
   * through `steps`, if there are any. `blocks` are those of a span, 0 for other graphs; a graph
   * that names `embed.bin` runs on no GPU: it only looks rows up. The files are gone afterwards.
   */
  async load(
    graph: FileBytes,
    names: string[],
    data: FileBytes[],
    steps: string,
    blocks: number,
  ): Promise<Piece> {
    const recipe = steps ? (JSON.parse(steps) as ExpandStep[]) : null;
    const files = names.map((name, index) => {
      const file = fileOf(data[index] as FileBytes);
      return recipe && EXPANDED.test(name)
        ? new ExpandedFile(file.whole(), recipe)
        : file.readOnce();
    });
    const gpu = this.provider === 'webgpu' && !names.includes('embed.bin');
    await this.start();
    try {
      const session = await this.turn('the model does not load', () =>
        ort.InferenceSession.create(new Uint8Array(fileOf(graph).whole()), {
          // WASM takes over single operators that the GPU lacks.
          executionProviders: gpu ? ['webgpu', 'wasm'] : ['wasm'],
          externalData: names.map((path, index) => ({ path, data: files[index] as Uint8Array })),
          graphOptimizationLevel: 'all',
          logSeverityLevel: 3,
          ...(gpu && blocks ? { preferredOutputLocation: onGpu(blocks) } : {}),
        }),
      );
      if (gpu) await this.watchDevice();
      return { blocks, session };
    } finally {
      // The engine has copied them. Garbage collection would let several lie about.
      for (const file of files) file.close();
    }
  }

  /** `half`: of float16, on a GPU. */
  cache(blocks: number, heads: number, capacity: number, size: number, half: boolean): KvCache {
    const shape: KvShape = { blocks, heads, capacity, size, half };
    if (this.provider === 'wasm') return new HeapCache(shape);
    if (!this.device) throw new NodeError('EngineError', 'the GPU is not in use yet');
    return new GpuCache(this.device, shape);
  }

  /** After whatever runs now, which may still use it. */
  closeCache(cache: KvCache): void {
    void this.turn('closing failed', async () => cache.close()).catch(() => {});
  }

  /** float32[count, width] through `pieces`, which lie one behind the other in `cache`. */
  async step(
    pieces: Piece[],
    cache: KvCache,
    hidden: PythonBytes,
    position: number,
    count: number,
  ): Promise<ArrayBuffer> {
    const given = floatsOf(hidden);
    requireFinite(given);
    return this.turn('a step failed', async () => {
      let now: ort.Tensor = new ort.Tensor('float32', given, [1, count, given.length / count]);
      let block = 0;
      for (const piece of pieces) {
        now = await runPiece(piece, cache, block, now, position + count);
        block += piece.blocks;
      }
      const result = now.data as Float32Array<ArrayBuffer>;
      requireFinite(result);
      return result.buffer;
    });
  }

  async embed({ session }: Piece, ids: PythonBytes): Promise<ArrayBuffer> {
    const list = new BigInt64Array(bytesOf(ids).buffer);
    return this.turn('the embedding failed', async () => {
      const input_ids = new ort.Tensor('int64', list, [1, list.length]);
      const out = await session.run({ input_ids });
      return floats(out, 'hidden').buffer;
    });
  }

  /** float64[1 + 2k]: the logarithm of the sum, k values falling, their k ids. */
  async head(
    { session }: Piece,
    hidden: PythonBytes,
    temperature: number,
    k: number,
  ): Promise<ArrayBuffer> {
    const given = floatsOf(hidden);
    requireFinite(given);
    return this.turn('the head failed', async () => {
      const out = await session.run({
        hidden_in: new ort.Tensor('float32', given, [1, 1, given.length]),
        temperature: new ort.Tensor('float32', Float32Array.of(temperature), [1]),
        k: new ort.Tensor('int64', BigInt64Array.of(BigInt(k)), [1]),
      });
      const ids = out.top_indices?.data as BigInt64Array;
      const numbers = [
        floats(out, 'logsumexp'),
        floats(out, 'top_values'),
        Array.from(ids, Number),
      ];
      return Float64Array.from(numbers.flatMap((list) => [...list])).buffer;
    });
  }

  async release({ session }: Piece): Promise<void> {
    await this.turn('closing failed', () => session.release());
  }

  /** ONNX Runtime is not re-entrant: everything waits for what came before. */
  private turn<T>(what: string, work: () => Promise<T>): Promise<T> {
    const mine = this.last.then(async () => {
      if (this.lost) throw new NodeError('EngineError', `the GPU is gone: ${this.lost}`);
      try {
        return await work();
      } catch (error) {
        throw asNodeError(this.lost ?? error, 'EngineError', what);
      }
    });
    this.last = mine.catch(() => {});
    return mine;
  }

  private start(): Promise<void> {
    this.ready ??= (async () => {
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmBinary = await this.files.read(engineFile);
      ort.env.logLevel = 'error';
    })();
    this.ready.catch(() => {
      this.ready = undefined; // the next session tries again
    });
    return this.ready;
  }

  private async watchDevice(): Promise<void> {
    if (this.device) return;
    const device = (await ort.env.webgpu.device) as GPUDevice;
    this.device = device;
    void device.lost.then(({ reason, message }) => {
      // ONNX Runtime destroys its device with the last session and makes another for the next.
      if (reason === 'destroyed') this.device = undefined;
      else this.lost = message || 'its device was lost';
    });
  }
}

function onGpu(blocks: number): Record<string, 'gpu-buffer' | 'cpu'> {
  const where: Record<string, 'gpu-buffer' | 'cpu'> = { hidden_out: 'cpu' };
  for (let block = 0; block < blocks; block++) {
    for (const part of ['key', 'value']) where[`present_${block}_${part}`] = 'gpu-buffer';
  }
  return where;
}

async function runPiece(
  piece: Piece,
  cache: KvCache,
  from: number,
  hidden: ort.Tensor,
  total: number,
): Promise<ort.Tensor> {
  const run = async (): Promise<ort.Tensor> => {
    const feeds: Record<string, ort.Tensor> = {
      hidden_in: hidden,
      seqlens_k: new ort.Tensor('int32', Int32Array.of(total - 1), [1]),
      total_sequence_length: new ort.Tensor('int32', Int32Array.of(total), []),
    };
    const fetches: Record<string, ort.Tensor | null> = { hidden_out: null };
    for (let block = 0; block < piece.blocks; block++) {
      const [key, value] = cache.block(from + block);
      feeds[`past_${block}_key`] = fetches[`present_${block}_key`] = key;
      feeds[`past_${block}_value`] = fetches[`present_${block}_value`] = value;
    }
    return (await piece.session.run(feeds, fetches)).hidden_out as ort.Tensor;
  };
  const before = engineModule().HEAPU8.buffer;
  try {
    return await run();
  } catch (error) {
    // The heap grew while inputs were handed over, and views of it died. A step may be repeated.
    if (engineModule().HEAPU8.buffer === before) throw error;
    return run();
  }
}

function floats(out: ort.InferenceSession.ReturnType, name: string): Float32Array<ArrayBuffer> {
  return out[name]?.data as Float32Array<ArrayBuffer>;
}

/** NaN in one position would spread to all later ones, and nobody could tell where it began. */
function requireFinite(values: Float32Array): void {
  let sum = 0;
  for (let at = 0; at < values.length; at++) sum += values[at] as number;
  if (!Number.isFinite(sum)) {
    const message = 'a hidden state holds NaN or infinity: the stage before this is broken';
    throw new NodeError('EngineError', message);
  }
}
