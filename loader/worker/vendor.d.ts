/** What comes without types: vendored scripts, and Python as text. */

declare module '*.py' {
  const source: string;
  export default source;
}

declare module 'pyodide/pyodide.asm.mjs' {
  const createPyodideModule: unknown;
  export default createPyodideModule;
}

declare module 'onnxruntime-web/ort-wasm-simd-threaded.jspi.mjs' {
  const factory: unknown;
  export default factory;
}

declare module 'onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs' {
  const factory: unknown;
  export default factory;
}
