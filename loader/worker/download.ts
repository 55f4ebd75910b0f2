/** GET with a size limit; the body is counted while it comes. */

import { asNodeError, NodeError } from './errors';

/** Silence for so long means that the other side is gone. */
const STALL_MS = 30_000;

export interface DownloadOptions {
  cache?: RequestCache;
  /** Told of every piece that has come. */
  told?: (bytes: number) => void;
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
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), STALL_MS);
  const alive = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), STALL_MS);
  };
  try {
    const response = await fetch(url, { signal: abort.signal, credentials: 'omit', cache });
    if (!response.ok || !response.body) {
      throw new NodeError('Unreachable', `${url} answers ${response.status}`);
    }
    return await collect(response.body, url, limit, (bytes) => {
      alive();
      told(bytes);
    });
  } catch (error) {
    throw asNodeError(error, 'Unreachable', `${url} does not answer`);
  } finally {
    clearTimeout(timer);
  }
}

async function collect(
  body: ReadableStream<Uint8Array>,
  url: string,
  limit: number,
  told: (bytes: number) => void,
): Promise<ArrayBuffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > limit) throw new NodeError('StoreError', `${url} is larger than ${limit} bytes`);
    chunks.push(chunk);
    told(chunk.byteLength);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.byteLength;
  }
  return whole.buffer;
}
