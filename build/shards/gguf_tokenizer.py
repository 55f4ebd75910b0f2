"""The tokenizer.json that a GGUF file's metadata stand for.

A vocabulary lies there as `gpt2` (byte-level BPE: tokens, merges, and the name of a pattern that
cuts the text first) or as `llama` (SentencePiece BPE: tokens and scores). The patterns are those
of the models' own tokenizer.json; the names those of llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gguf.constants import TokenType
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from build.shards.gguf_header import Header
from build.shards.source import CheckpointError
from build.shards.tokenizer import guarded

__all__ = ["PATTERNS", "end_ids", "special_texts", "tokenizer_json"]

_GPT2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_LONGEST_PIECE = 256
"""Characters of a token whose splits are tried; SentencePiece makes none longer than 16."""
_MOST_SPLITS = 1 << 25
"""Of all tokens together: half a minute."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """How text is cut before it is merged; None: as GPT-2 did, by the library's own pattern."""

    regex: str | None
    digits: bool = False
    """Every digit stands alone, before all else."""
    nfc: bool = False
    whole_first: bool = False
    """A piece that is a token as it stands is not merged up to it."""
    bos: bool = False
    """A text begins with the bos token where the file does not say."""


_LLAMA3 = Pattern(_GPT2 % "{1,3}", whole_first=True, bos=True)
_QWEN2 = Pattern(_GPT2 % "", nfc=True)

PATTERNS: dict[str, Pattern] = {
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "smollm": Pattern(None, digits=True),
    "gpt-2": Pattern(None),
    "tekken": Pattern(_TEKKEN, whole_first=True, bos=True),
}
"""By `tokenizer.ggml.pre`."""

_ENDS = {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"}


def tokenizer_json(header: Header) -> bytes:
    """Raises `CheckpointError` for a tokenizer of another kind, which it names."""
    model = header.require("tokenizer.ggml.model", str)
    vocabulary = _Vocabulary(header)
    with guarded("the file's tokenizer"):
        if model == "gpt2":
            tokenizer = _byte_level(header, vocabulary)
        elif model == "llama":
            tokenizer = _sentence_piece(header, vocabulary)
        else:
            raise CheckpointError(
                f"the tokenizer {model[:50]!r} is not supported; these are: gpt2, llama"
            )
        return str(tokenizer.to_str()).encode()


def special_texts(header: Header) -> dict[str, str]:
    """The texts of the special tokens, by the names that chat templates use."""
    tokens = header.strings("tokenizer.ggml.tokens")
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    found: dict[str, str] = {}
    for key, name in names.items():
        number = header.get(f"tokenizer.ggml.{key}_token_id", int)
        if number is not None and 0 <= number < len(tokens) and tokens[number]:
            found[f"{name}_token"] = tokens[number]
    return found


def end_ids(header: Header) -> list[int]:
    """The ids that end an answer: those the file names, and those that chat models' files often
    forget, by their texts, as llama.cpp has it."""
    tokens = header.strings("tokenizer.ggml.tokens")
    named = (header.get(f"tokenizer.ggml.{key}_token_id", int) for key in ("eos", "eot", "eom"))
    ids = [number for number in named if number is not None]
    types = header.numbers("tokenizer.ggml.token_type")
    for number, (text, kind) in enumerate(zip(tokens, types, strict=False)):
        if kind == TokenType.CONTROL and text in _ENDS:
            ids.append(number)
    return list(dict.fromkeys(ids))


class _Vocabulary:
    """Tokens by id; those of the model proper, and those added to it."""

    def __init__(self, header: Header) -> None:
        self.tokens = header.strings("tokenizer.ggml.tokens")
        types = header.numbers("tokenizer.ggml.token_type") or [TokenType.NORMAL] * len(self.tokens)
        if not self.tokens or len(types) != len(self.tokens):
            raise CheckpointError(f"{len(self.tokens)} tokens of {len(types)} types")
        self.types = types

    def model(self) -> dict[str, int]:
        """Tokens that text is merged to, added ones included: they have an id of their own."""
        return {
            text: number
            for number, (text, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind != TokenType.UNUSED
        }

    def added(self) -> list[AddedToken]:
        """Tokens that are looked for in the text itself, in the order of their ids."""
        kinds = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
        return [
            AddedToken(text, special=kind != TokenType.USER_DEFINED, normalized=False)
            for text, kind in zip(self.tokens, self.types, strict=True)
            if kind in kinds and text
        ]


def _byte_level(header: Header, vocabulary: _Vocabulary) -> Tokenizer:
    name = header.get("tokenizer.ggml.pre", str)
    pattern = PATTERNS.get(name or "")
    if pattern is None:
        raise CheckpointError(
            f"text is cut as {name!r:.50} does (tokenizer.ggml.pre), which is not supported; these"
            f" are: {', '.join(PATTERNS)}"
        )
    merges = [_pair(merge) for merge in header.strings("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocabulary.model(), merges, ignore_merges=pattern.whole_first))
    steps: list[pre_tokenizers.PreTokenizer] = []
    if pattern.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pattern.regex is not None:
        steps.append(pre_tokenizers.Split(Regex(pattern.regex), "isolated"))
    plain = pattern.regex is None
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=plain))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if pattern.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    _finish(tokenizer, header, vocabulary, pattern.bos)
    return tokenizer


def _sentence_piece(header: Header, vocabulary: _Vocabulary) -> Tokenizer:
    vocab = vocabulary.model()
    scores = header.numbers("tokenizer.ggml.scores")
    if len(scores) != len(vocabulary.tokens):
        raise CheckpointError(f"{len(scores)} scores of {len(vocabulary.tokens)} tokens")
    unknown = header.get("tokenizer.ggml.unknown_token_id", int) or 0
    if not 0 <= unknown < len(vocabulary.tokens):
        raise CheckpointError(f"the unknown token {unknown} is outside the vocabulary")
    tokenizer = Tokenizer(
        models.BPE(
            vocab,
            list(_merges(vocabulary, vocab, scores)),
            unk_token=vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = header.get("tokenizer.ggml.add_space_prefix", bool) is not False
    replace: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    ends: list[decoders.Decoder] = [
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
    ]  # fmt: skip
    if prefix:
        replace.insert(0, normalizers.Prepend("▁"))
        ends.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(replace)
    tokenizer.decoder = decoders.Sequence(ends)
    _finish(tokenizer, header, vocabulary, bos=True)
    return tokenizer


def _finish(tokenizer: Tokenizer, header: Header, vocabulary: _Vocabulary, bos: bool) -> None:
    """Adds the added tokens, and the bos token before a text."""
    tokenizer.add_tokens(vocabulary.added())
    said = header.get("tokenizer.ggml.add_bos_token", bool)
    text = special_texts(header).get("bos_token")
    if (bos if said is None else said) and text:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[text, "$A"], special_tokens=[(text, tokenizer.token_to_id(text))]
        )


def _merges(
    vocabulary: _Vocabulary, vocab: dict[str, int], scores: list[float]
) -> Iterator[tuple[str, str]]:
    """Every way in which two tokens make a third, the best-scored third first."""
    found: list[tuple[float, int, int, str, str]] = []
    splits = 0
    for text, kind, score in zip(vocabulary.tokens, vocabulary.types, scores, strict=True):
        if kind != TokenType.NORMAL or len(text) > _LONGEST_PIECE:
            continue
        splits += len(text)
        if splits > _MOST_SPLITS:
            raise CheckpointError(f"its tokens have more than {_MOST_SPLITS} characters")
        for at in range(1, len(text)):
            left, right = text[:at], text[at:]
            if left in vocab and right in vocab:
                found.append((-float(score), vocab[left], vocab[right], left, right))
    for _, _, _, left, right in sorted(found):
        yield left, right


def _pair(merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not space or " " in right:
        raise CheckpointError(f"{merge[:100]!r} is no merge of two tokens")
    return left, right
