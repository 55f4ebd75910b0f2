/** Text to token ids and back, by the model's own tokenizer.json. */

import { Tokenizer as HuggingFace } from '@huggingface/tokenizers';
import { asNodeError } from './errors';

/** Of a tokenizer.json, what is looked at here. */
interface Described {
  added_tokens?: { content: string; special: boolean }[];
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
    if (!ids.length) return '';
    return this.inner.decode(ids, { skip_special_tokens: true });
  }
}
