"""Tokenizers put together as each family's tokenizer.json is, trained on little text."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.tokenizers.scripts import SENTENCES

__all__ = ["FAMILIES", "described"]

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Mistral's since Nemo."""
VOCABULARY = 3000


def byte_level(pattern: str, special: list[str], plain: list[str], **changes: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**changes))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if pattern == QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in plain])
    return tokenizer


def sentencepiece(*, metaspace: bool, special: list[str]) -> Tokenizer:
    """As Llama 2's and the first Mistrals' converted tokenizers: bytes for what is rare."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "never")
    common = "▁" + "".join(SENTENCES[:7]) + SENTENCES[14]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        limit_alphabet=len(set(common)),
        initial_alphabet=sorted(set(common)),
        show_progress=False,
    )
    tokenizer.train_from_iterator([line for line in SENTENCES[:24] for _ in range(3)], trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learnt = sorted(trained["vocab"], key=trained["vocab"].__getitem__)
    model = models.BPE(
        vocab={text: at for at, text in enumerate([*first, *learnt])},
        merges=[tuple(merge) for merge in trained["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    made = Tokenizer(model)
    if metaspace:
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    else:
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    made.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in (*first[:3], *special)]
    )
    return made


LLAMA3_SPECIAL = [
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    "<|eot_id|>",
]
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN3_PLAIN = ["<tool_call>", "</tool_call>", "<think>", "</think>"]

FAMILIES = {
    "llama3": lambda: byte_level(LLAMA3, LLAMA3_SPECIAL, [], ignore_merges=True),
    "qwen2": lambda: byte_level(QWEN2, QWEN_SPECIAL, []),
    "qwen3": lambda: byte_level(QWEN2, QWEN_SPECIAL, QWEN3_PLAIN),
    "mistral-tekken": lambda: byte_level(
        TEKKEN, ["<s>", "</s>", "[INST]", "[/INST]"], [], ignore_merges=True
    ),
    "llama2": lambda: sentencepiece(metaspace=False, special=[]),
    "mistral": lambda: sentencepiece(metaspace=True, special=["[INST]", "[/INST]"]),
}


@cache
def described(name: str) -> str:
    """The tokenizer.json of a family."""
    return str(FAMILIES[name]().to_str())
