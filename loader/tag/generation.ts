/** One running answer as an async iterator; leaving it early cancels the work behind it. */

import type { Json } from '../protocol';
import type { Link } from './link';
import type { Hop } from './status';

export interface Piece {
  text: string;
  ids: number[];
  /** At the start, and when another route was taken; such a piece has no text. */
  route?: Hop[];
}

export interface Outcome {
  text: string;
  ids: number[];
  prompt_ids: number[];
  finish_reason: 'stop' | 'length';
  usage: { prompt_tokens: number; completion_tokens: number };
  route: Hop[];
  ttft_ms: number;
  decode_tok_s: number;
  model: string;
}

export async function* generate(
  link: Link,
  request: Record<string, Json>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Piece, Outcome, void> {
  signal?.throwIfAborted();
  const ids: number[] = [];
  let text = '';
  const pieces: Piece[] = [];
  let wake = (): void => {};
  let end: { outcome?: Outcome; error?: unknown } | undefined;
  const finish = (how: NonNullable<typeof end>): void => {
    end ??= how;
    wake();
  };

  const take = (piece: Piece): void => {
    ids.push(...piece.ids);
    text += piece.text;
    pieces.push(piece);
    wake();
  };
  const params = (): Json => (ids.length ? { ...request, resume_ids: [...ids] } : request);
  const call = link.call('generate', params, (value) => take(value as unknown as Piece));
  call.done.then(
    (value) => {
      const done = value as unknown as Outcome;
      // The node may hold text back until it knows that no stop sequence begins there.
      const rest = done.text.startsWith(text) ? done.text.slice(text.length) : '';
      if (rest) take({ text: rest, ids: done.ids.slice(ids.length) });
      finish({ outcome: { ...done, text, ids } });
    },
    (error: unknown) => finish({ error }),
  );
  const abort = (): void => finish({ error: signal?.reason });
  signal?.addEventListener('abort', abort);

  try {
    for (;;) {
      if (end?.error !== undefined) throw end.error;
      const piece = pieces.shift();
      if (piece) yield piece;
      else if (end?.outcome) return end.outcome;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    signal?.removeEventListener('abort', abort);
    call.cancel(); // nothing is left to cancel after the end
  }
}
