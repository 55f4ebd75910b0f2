/**
 * Errors that cross borders. `name` is a class of pyodide_node/errors.py, so that Python can
 * raise the same thing; whatever else goes wrong keeps its JavaScript name.
 */

import type { ErrorData } from '../protocol';

export type ErrorName =
  | 'BudgetExceeded'
  | 'ConfigError'
  | 'EngineError'
  | 'IntegrityError'
  | 'ProtocolError'
  | 'SealError'
  | 'StoreError'
  | 'Unreachable';

export class NodeError extends Error {
  constructor(name: ErrorName, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = name;
  }
}

/** For the page: what happened, never where in the code. */
export function errorData(error: unknown): ErrorData {
  if (error instanceof Error) {
    // Python's traceback is the message of a PythonError: it is for the console, not the page.
    const message =
      error.name === 'PythonError' ? 'the node failed to start' : error.message.slice(0, 500);
    return { code: error.name, message };
  }
  return { code: 'Error', message: String(error).slice(0, 500) };
}

/** `error` as a NodeError called `name`, unless it is one already. */
export function asNodeError(error: unknown, name: ErrorName, what: string): NodeError {
  if (error instanceof NodeError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new NodeError(name, `${what}: ${reason.slice(0, 300)}`, error);
}

/** Rejects with `name` when `work` has not settled after `ms`. */
export async function within<T>(
  ms: number,
  work: Promise<T>,
  name: ErrorName,
  what: string,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new NodeError(name, what)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
