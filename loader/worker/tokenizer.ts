/**
 * Text to token ids and back, by the model's own tokenizer.json: the same ids and the same text
 * as Python's `tokenizers` gives (tests/tokenizers). One difference is left: characters that the
 * browser's Unicode has and that of Oniguruma (16.0) does not yet, or the other way round.
 */

import { ByteFallbackDecoder, Tokenizer as HuggingFace } from '@huggingface/tokenizers';
import { asNodeError } from './errors';

/** Of a tokenizer.json, what is looked at here. */
interface Described {
  added_tokens?: { content: string; special: boolean }[];
}

const BYTE = /^<0x([0-9A-Fa-f]{2})>$/;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The library's own drops U+FEFF, and mends a run of bytes that is no UTF-8 where Python gives
 * one U+FFFD for each of them. */
ByteFallbackDecoder.prototype.decode_chain = (tokens: string[]): string[] => {
  const texts: string[] = [];
  let run: number[] = [];
  const end = (): void => {
    if (run.length) texts.push(runText(run));
    run = [];
  };
  for (const token of tokens) {
    const byte = BYTE.exec(token)?.[1];
    if (byte !== undefined) {
      run.push(Number.parseInt(byte, 16));
      continue;
    }
    end();
    texts.push(token);
  }
  end();
  return texts;
};

function runText(bytes: number[]): string {
  try {
    return utf8.decode(Uint8Array.from(bytes));
  } catch {
    return '\ufffd'.repeat(bytes.length);
  }
}

export class Tokenizer {
  readonly specialTokens: string[];
  private readonly inner: HuggingFace;

  constructor(json: ArrayBuffer) {
    try {
      const described = JSON.parse(new TextDecoder().decode(json)) as Described;
      this.inner = new HuggingFace(described, { clean_up_tokenization_spaces: false });
      const added = described.added_tokens ?? [];
      this.specialTokens = added.filter((token) => token.special).map((token) => token.content);
    } catch (error) {
      throw asNodeError(error, 'EngineError', "the model's tokenizer does not load");
    }
  }

  encode(text: string): number[] {
    return this.inner.encode(text, { add_special_tokens: false }).ids;
  }

  decode(ids: number[]): string {
    // Models have more ids than their tokenizers: the last rows of the head mean nothing.
    const known = ids.filter((id) => this.inner.id_to_token(id) !== undefined);
    return known.length ? this.inner.decode(known, { skip_special_tokens: true }) : '';
  }
}
