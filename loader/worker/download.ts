/** GET with a size limit; the body is counted while it comes. */

import { asNodeError, NodeError } from './errors';

/** Silence for so long means that the other side is gone. */
const STALL_MS = 30_000;

export interface DownloadOptions {
  cache?: RequestCache;
  /** Told of every piece that has come. */
  told?: (bytes: number) => void;
}

export interface StreamOptions {
  cache?: RequestCache;
  /** First and last byte. */
  range?: [number, number] | undefined;
  abort?: AbortController;
}

/** What a URL answers, as it comes. `whole` of an answer that is not the range asked for. */
export interface Answer {
  whole: boolean;
  chunks: AsyncIterable<Uint8Array>;
}

/**
 * The body of `url`, at most `limit` bytes. Raises Unreachable when it does not answer well, and
 * StoreError when it is larger: whoever serves it must not fill the visitor's memory.
 */
export async function download(
  url: string,
  limit: number,
  { cache = 'default', told = () => {} }: DownloadOptions = {},
): Promise<ArrayBuffer> {
  return stream(url, { cache }, async ({ chunks }) => {
    const held: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of chunks) {
      size += chunk.byteLength;
      if (size > limit) throw new NodeError('StoreError', `${url} is larger than ${limit} bytes`);
      held.push(chunk);
      told(chunk.byteLength);
    }
    const whole = new Uint8Array(size);
    let at = 0;
    for (const chunk of held) {
      whole.set(chunk, at);
      at += chunk.byteLength;
    }
    return whole.buffer;
  });
}

/**
 * Hands the answer to `take` and ends the request when that returns or throws. Raises what `take`
 * raises, and Unreachable when `url` does not answer well, breaks off or falls silent.
 */
export async function stream<T>(
  url: string,
  { cache = 'default', range, abort = new AbortController() }: StreamOptions,
  take: (answer: Answer) => Promise<T>,
): Promise<T> {
  let timer = setTimeout(() => abort.abort(), STALL_MS);
  const alive = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), STALL_MS);
  };
  try {
    // A single range is asked for without a preflight (https://fetch.spec.whatwg.org/).
    const headers: HeadersInit = range ? { Range: `bytes=${range[0]}-${range[1]}` } : {};
    const response = await fetch(url, {
      signal: abort.signal,
      credentials: 'omit',
      cache,
      headers,
    });
    if (!response.ok || !response.body) {
      throw new NodeError('Unreachable', `${url} answers ${response.status}`);
    }
    return await take({
      whole: response.status !== 206,
      chunks: watched(response.body, alive),
    });
  } catch (error) {
    throw asNodeError(error, 'Unreachable', `${url} does not answer`);
  } finally {
    clearTimeout(timer);
    abort.abort(); // of a body that has been read to its end, this is nothing
  }
}

async function* watched(
  body: ReadableStream<Uint8Array>,
  alive: () => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    alive();
    yield chunk;
  }
}
