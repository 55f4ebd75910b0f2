import type { ErrorData, Json } from '../protocol';

/** Every error of the public API. `code` is a class name of pyodide_node/errors.py or one of the
 * tag's own: ConsentRequired, ConfigError, NotRunning, WorkerLost, Unreachable. */
export class KwaaiNetError extends Error {
  override readonly name = 'KwaaiNetError';
  readonly code: string;
  readonly data: Json;

  constructor(code: string, message: string, data: Json = null) {
    super(message);
    this.code = code;
    this.data = data;
  }

  static from({ code, message, data }: ErrorData): KwaaiNetError {
    return new KwaaiNetError(code, message, data);
  }
}
