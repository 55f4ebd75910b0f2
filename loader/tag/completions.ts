/** OpenAI's completions and chat completions over the node, with what only a network can say. */

import type { Json } from '../protocol';
import { generate, type Outcome, type Piece } from './generation';
import type { Link } from './link';
import type { Hop } from './status';

interface Common {
  model?: string;
  max_tokens?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  repetition_penalty?: number;
  seed?: number;
  stop?: string | string[];
  stream?: boolean;
  signal?: AbortSignal;
}

export interface CompletionRequest extends Common {
  prompt: string;
}

export interface ChatRequest extends Common {
  messages: { role: string; content: string | { type: 'text'; text: string }[] }[];
}

export interface Details {
  prompt_ids: number[];
  ids: number[];
  route: Hop[];
  ttft_ms: number;
  decode_tok_s: number;
}

export interface Completion {
  id: string;
  object: string;
  created: number;
  model: string;
  choices: Choice[];
  usage?: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
  /** All on the whole answer and on the last chunk of a stream; `route` alone when it changes. */
  kwaainet?: Pick<Details, 'route'> & Partial<Details>;
}

export interface Choice {
  index: 0;
  finish_reason: 'stop' | 'length' | null;
  text?: string;
  message?: { role: 'assistant'; content: string };
  delta?: { role?: 'assistant'; content?: string };
}

type Create<R extends Common> = {
  (request: R & { stream: true }): Promise<AsyncGenerator<Completion, void, void>>;
  (request: R): Promise<Completion>;
};

/** `acquire` gives the link of a running node, or raises why there is none. */
export function endpoints(acquire: () => Promise<Link>) {
  const create = (chat: boolean) => async (request: CompletionRequest | ChatRequest) => {
    const { stream, signal, ...params } = request;
    const pieces = generate(await acquire(), params as unknown as Record<string, Json>, signal);
    const head: Head = {
      id: (chat ? 'chatcmpl-' : 'cmpl-') + Date.now(),
      object: chat ? 'chat.completion' : 'text_completion',
      created: Math.floor(Date.now() / 1000),
      model: request.model ?? '',
    };
    if (stream) return chunks(chat, head, pieces);
    let next = await pieces.next();
    while (!next.done) next = await pieces.next();
    const { text } = next.value;
    return {
      ...head,
      ...ending(next.value, chat ? { message: { role: 'assistant', content: text } } : { text }),
    };
  };
  return {
    completions: { create: create(false) as Create<CompletionRequest> },
    chat: { completions: { create: create(true) as Create<ChatRequest> } },
  };
}

type Head = Pick<Completion, 'id' | 'object' | 'created' | 'model'>;

async function* chunks(
  chat: boolean,
  head: Head,
  pieces: AsyncGenerator<Piece, Outcome, void>,
): AsyncGenerator<Completion, void, void> {
  if (chat) head.object += '.chunk';
  const part = (text: string): Partial<Choice> => (chat ? { delta: { content: text } } : { text });
  const chunk = (choice: Partial<Choice>): Completion => ({
    ...head,
    choices: [{ index: 0, finish_reason: null, ...choice }],
  });
  try {
    if (chat) yield chunk({ delta: { role: 'assistant', content: '' } }); // as OpenAI opens a stream
    for (;;) {
      const next = await pieces.next();
      if (next.done)
        return void (yield { ...head, ...ending(next.value, chat ? { delta: {} } : { text: '' }) });
      const { text, route } = next.value;
      yield { ...chunk(part(text)), ...(route && { kwaainet: { route } }) };
    }
  } finally {
    await pieces.return(undefined as never); // a reader that breaks off stops the node too
  }
}

function ending(
  outcome: Outcome,
  choice: Partial<Choice>,
): Pick<Completion, 'model' | 'choices' | 'usage' | 'kwaainet'> {
  const { model, finish_reason, usage, text: _, ...kwaainet } = outcome;
  return {
    model,
    choices: [{ index: 0, finish_reason, ...choice }],
    usage: { ...usage, total_tokens: usage.prompt_tokens + usage.completion_tokens },
    kwaainet,
  };
}
