/**
 * What vendored scripts used to ask for by URL. The build's patches make them call here: Pyodide
 * for its verified files, ONNX Runtime for the glue of the engine that this browser can run.
 */

import asyncify from 'onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs';
import jspi from 'onnxruntime-web/ort-wasm-simd-threaded.jspi.mjs';

/** The part of the engine's Emscripten module that the bridge uses itself. */
export interface EngineModule {
  readonly HEAPU8: Uint8Array<ArrayBuffer>;
  _malloc(size: number): number;
  _free(pointer: number): void;
}

type Factory = (options: object) => Promise<EngineModule>;

/** JSPI where there is any: smaller, and its calls cost less than asyncify's. */
export const hasJspi = 'Suspending' in WebAssembly;
export const engineFile = hasJspi ? 'ort-jspi' : 'ort-asyncify';

let engine: EngineModule | undefined;

/** Raises when no session has been made yet. */
export function engineModule(): EngineModule {
  if (!engine) throw new Error('the engine has not been started');
  return engine;
}

let compiled: Promise<WebAssembly.Module> | undefined;

/** Compile the engine now, beside other work; its first session finds it done. */
export function compileEngine(read: Promise<Uint8Array<ArrayBuffer> | ArrayBuffer>): void {
  const compiling = read.then((bytes) => WebAssembly.compile(bytes));
  compiled = compiling;
  compiling.catch(() => {
    if (compiled === compiling) compiled = undefined; // asked for again, and told, when needed
  });
}

/** For ONNX Runtime, in place of import(). */
export async function glue(): Promise<{ default: Factory }> {
  const factory = (hasJspi ? jspi : asyncify) as unknown as Factory;
  return {
    default: async (options) => {
      const ready = await compiled?.catch(() => undefined);
      engine = await factory(
        ready ? { ...options, instantiateWasm: instantiated(ready) } : options,
      );
      return engine;
    },
  };
}

/** Emscripten's hook for a module that is compiled already. */
function instantiated(module: WebAssembly.Module) {
  return (
    imports: WebAssembly.Imports,
    receive: (instance: WebAssembly.Instance, module: WebAssembly.Module) => void,
  ): object => {
    void WebAssembly.instantiate(module, imports).then((instance) => receive(instance, module));
    return {};
  };
}

const binaries = new Map<string, ArrayBuffer>();
let refuse: (reason: unknown) => void = () => {};

/** Files by name for the loadPyodide() that follows, and whom to tell if it cannot use them. */
export function supply(
  files: Record<string, ArrayBuffer>,
  refused: (reason: unknown) => void,
): void {
  binaries.clear();
  for (const [name, bytes] of Object.entries(files)) binaries.set(name, bytes);
  refuse = refused;
}

/** For Pyodide, in place of fetch(). Handed out once, so that nothing keeps the bytes alive. */
export async function binary(url: string): Promise<Uint8Array> {
  const name = url.slice(url.lastIndexOf('/') + 1);
  const bytes = binaries.get(name);
  if (!bytes) throw new Error(`Pyodide asked for ${name}, which is not part of the runtime`);
  binaries.delete(name);
  return new Uint8Array(bytes);
}

/** For Pyodide, in place of a warning in the console: its WebAssembly was not accepted. */
export function refused(reason: unknown): void {
  refuse(reason);
}
