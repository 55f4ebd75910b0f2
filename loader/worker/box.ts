/**
 * Cache Storage as a box of bytes by name. Where storage is denied the box is empty and stays
 * so: nothing here ever throws, because the node runs without storage too.
 */

/** Some browsers neither allow nor refuse, but never answer. */
const OPEN_MS = 5000;

export class Box {
  private cache: Promise<Cache | null> | undefined;

  constructor(private readonly name: string) {}

  async get(key: string): Promise<ArrayBuffer | null> {
    try {
      const response = await (await this.open())?.match(address(key));
      return response ? await response.arrayBuffer() : null;
    } catch {
      return null; // half-written or evicted while being read
    }
  }

  /** The first `size` bytes, read into `room`, which is gone afterwards; null when there are less. */
  async into(
    room: ArrayBuffer,
    key: string,
    size: number,
  ): Promise<Uint8Array<ArrayBuffer> | null> {
    try {
      const response = await (await this.open())?.match(address(key));
      return response ? await filled(room, response, size) : null;
    } catch {
      return null;
    }
  }

  /** False when there is no room or no storage. */
  async put(key: string, bytes: BufferSource): Promise<boolean> {
    try {
      const cache = await this.open();
      if (!cache) return false;
      await cache.put(address(key), new Response(bytes));
      return true;
    } catch {
      return false;
    }
  }

  async drop(key: string): Promise<void> {
    try {
      await (await this.open())?.delete(address(key));
    } catch {
      // Not there any more is what was asked for.
    }
  }

  async keys(): Promise<string[]> {
    try {
      const requests = (await (await this.open())?.keys()) ?? [];
      return requests.map((request) => new URL(request.url).pathname.slice(PREFIX.length));
    } catch {
      return [];
    }
  }

  /** Whether there is storage at all. */
  async works(): Promise<boolean> {
    return (await this.open()) !== null;
  }

  private open(): Promise<Cache | null> {
    this.cache ??= new Promise((resolve) => {
      const timer = setTimeout(() => resolve(null), OPEN_MS);
      const done = (cache: Cache | null): void => {
        clearTimeout(timer);
        resolve(cache);
      };
      try {
        caches.open(this.name).then(done, () => done(null));
      } catch {
        done(null);
      }
    });
    return this.cache;
  }
}

const PREFIX = '/kwaainet/';

/** Cache Storage wants URLs; nothing ever asks the network for these. */
function address(key: string): string {
  return new URL(PREFIX + key, location.origin).href;
}

async function filled(
  room: ArrayBuffer,
  response: Response,
  size: number,
): Promise<Uint8Array<ArrayBuffer> | null> {
  const reader = intoBuffers(response);
  if (!reader) {
    const whole = await response.arrayBuffer();
    return whole.byteLength < size ? null : new Uint8Array(whole, 0, size);
  }
  let buffer = room;
  for (let at = 0; at < size; ) {
    const { value, done } = await reader.read(new Uint8Array(buffer, at, size - at));
    if (done) return null;
    buffer = value.buffer;
    at += value.byteLength;
  }
  await reader.cancel();
  return new Uint8Array(buffer, 0, size);
}

/** Not every browser fills buffers that it is given. */
function intoBuffers({ body }: Response): ReadableStreamBYOBReader | undefined {
  try {
    return body?.getReader({ mode: 'byob' });
  } catch {
    return undefined;
  }
}
