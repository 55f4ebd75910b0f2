/**
 * The yardstick: the same model, decoded greedily by nothing but onnxruntime-web as published and
 * a loop, the way its documentation shows. Sets `bareDecode` on the page.
 */

import * as ort from 'onnxruntime-web/wasm';
import { type ExpandStep, ExpandedFile } from '../../loader/worker/expansion';

interface Blob {
  sha256: string;
}

interface Expansion {
  layer: ExpandStep[];
  head: ExpandStep[];
}

interface Variant {
  head: Blob;
  spans: Record<string, Blob>;
  expand?: Expansion;
}

interface Manifest {
  blocks: number;
  kv_heads: number;
  head_dim: number;
  hidden_size: number;
  embed: Blob;
  head: Blob;
  rope: Blob;
  layers: Blob[];
  graphs: { embed: Blob; variants: Record<string, Variant> };
}

type Files = Record<string, Uint8Array>;

class Bare {
  private constructor(
    private readonly manifest: Manifest,
    private readonly embed: ort.InferenceSession,
    private readonly span: ort.InferenceSession,
    private readonly head: ort.InferenceSession,
  ) {}

  static async load(folder: string): Promise<Bare> {
    const read = async ({ sha256 }: Blob): Promise<ArrayBuffer> =>
      (await fetch(`${folder}blobs/${sha256}`)).arrayBuffer();
    const raw = async (blob: Blob): Promise<Uint8Array> => new Uint8Array(await read(blob));
    const manifest = (await (await fetch(`${folder}manifest.json`)).json()) as Manifest;
    const variant = manifest.graphs.variants['wasm-expanded'] as Variant;
    const expand = variant.expand as Expansion;
    const open = async (graph: Blob, files: Files): Promise<ort.InferenceSession> =>
      ort.InferenceSession.create(await raw(graph), {
        executionProviders: ['wasm'],
        externalData: Object.entries(files).map(([path, data]) => ({ path, data })),
      });
    const layers: Files = { 'rope.bin': await raw(manifest.rope) };
    for (const [index, layer] of manifest.layers.entries()) {
      layers[`layer${index}.bin`] = new ExpandedFile(await read(layer), expand.layer);
    }
    return new Bare(
      manifest,
      await open(manifest.graphs.embed, { 'embed.bin': await raw(manifest.embed) }),
      await open(variant.spans[manifest.blocks] as Blob, layers),
      await open(variant.head, {
        'head.bin': new ExpandedFile(await read(manifest.head), expand.head),
      }),
    );
  }

  /** Tokens a second of `count` greedy tokens after the prompt; the first is not counted. */
  async rate(prompt: number[], count: number): Promise<number> {
    const { blocks, kv_heads, head_dim } = this.manifest;
    let past: Record<string, ort.Tensor> = {};
    for (let block = 0; block < blocks; block++) {
      for (const part of ['key', 'value']) {
        past[`past_${block}_${part}`] = new ort.Tensor('float32', [], [1, kv_heads, 0, head_dim]);
      }
    }
    let fresh = prompt;
    let total = 0;
    let began = 0;
    for (let made = 0; made < count; made++) {
      total += fresh.length;
      const input_ids = new ort.Tensor('int64', BigInt64Array.from(fresh, BigInt), [
        1,
        fresh.length,
      ]);
      const { hidden } = await this.embed.run({ input_ids });
      const { hidden_out, ...present } = await this.span.run({
        hidden_in: hidden as ort.Tensor,
        seqlens_k: new ort.Tensor('int32', Int32Array.of(total - 1), [1]),
        total_sequence_length: new ort.Tensor('int32', Int32Array.of(total), []),
        ...past,
      });
      past = {};
      for (const [name, tensor] of Object.entries(present)) {
        past[name.replace('present', 'past')] = tensor;
      }
      const { top_indices } = await this.head.run({
        hidden_in: hidden_out as ort.Tensor,
        temperature: new ort.Tensor('float32', Float32Array.of(1), [1]),
        k: new ort.Tensor('int64', BigInt64Array.of(1n), [1]),
      });
      fresh = [Number((top_indices as ort.Tensor).data[0])];
      if (made === 0) began = performance.now();
    }
    return ((count - 1) * 1000) / (performance.now() - began);
  }
}

declare global {
  var loadBare: (folder: string, wasm: string) => Promise<void>;
  var bareRate: (prompt: number[], count: number) => Promise<number>;
}

let bare: Bare;

globalThis.loadBare = async (folder, wasm) => {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { wasm };
  bare = await Bare.load(folder);
};
globalThis.bareRate = (prompt, count) => bare.rate(prompt, count);
