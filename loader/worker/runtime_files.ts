/**
 * The files of the runtime, each pinned by the table that the build compiled into this script.
 * A file is used only when its bytes have the pinned hash, from the network and from the cache
 * alike; a copy that does not is fetched once more, and then given up.
 */

import { Box } from './box';
import { download } from './download';
import { NodeError } from './errors';
import { sha256 } from './hash';

export interface RuntimeFile {
  file: string;
  sha256: string;
  bytes: number;
}

declare const __RUNTIME_TABLE__: Record<string, RuntimeFile>;

export const runtimeTable = __RUNTIME_TABLE__;

/** Told how many bytes of a file have come; negative when they turned out to be wrong. */
export type Progress = (bytes: number) => void;

export class RuntimeFiles {
  private readonly box = new Box('kwaainet-runtime');
  private readonly reads = new Map<string, Promise<ArrayBuffer>>();

  constructor(
    private readonly folder: string,
    private readonly progress: Progress = () => {},
  ) {}

  /** Verified bytes. Raises IntegrityError, Unreachable. Read once: a second call shares it. */
  read(name: string): Promise<ArrayBuffer> {
    let read = this.reads.get(name);
    if (!read) {
      read = this.verified(name);
      this.reads.set(name, read);
      read.catch(() => this.reads.delete(name));
    }
    return read;
  }

  /** Let go of a file's bytes. */
  release(name: string): void {
    this.reads.delete(name);
  }

  /** Drop files of former versions. */
  async sweep(): Promise<void> {
    const current = new Set(Object.values(runtimeTable).map((entry) => entry.file));
    for (const key of await this.box.keys()) if (!current.has(key)) await this.box.drop(key);
  }

  private async verified(name: string): Promise<ArrayBuffer> {
    const entry = runtimeTable[name];
    if (!entry) throw new NodeError('IntegrityError', `the runtime has no file called ${name}`);
    const held = await this.box.get(entry.file);
    if (held) {
      if (await matches(held, entry)) {
        this.progress(held.byteLength);
        return held;
      }
      await this.box.drop(entry.file);
    }
    const fresh = await this.fetched(entry, 'default');
    void this.box.put(entry.file, fresh);
    return fresh;
  }

  private async fetched(entry: RuntimeFile, cache: RequestCache): Promise<ArrayBuffer> {
    let come = 0;
    const told = (count: number): void => {
      come += count;
      this.progress(count);
    };
    try {
      const bytes = await download(this.folder + entry.file, entry.bytes, { cache, told });
      if (await matches(bytes, entry)) return bytes;
    } catch (error) {
      // Larger than it should be is as wrong as different.
      if (!(error instanceof NodeError) || error.name !== 'StoreError') throw error;
    }
    this.progress(-come);
    // The HTTP cache may hold a damaged copy of its own: ask past it, once.
    if (cache === 'default') return this.fetched(entry, 'reload');
    const message = `${entry.file} is not the file this version was built with; reload the page`;
    throw new NodeError('IntegrityError', message);
  }
}

async function matches(bytes: ArrayBuffer, entry: RuntimeFile): Promise<boolean> {
  return bytes.byteLength === entry.bytes && (await sha256(bytes)) === entry.sha256;
}
