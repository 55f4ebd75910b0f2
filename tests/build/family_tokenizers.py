"""Tokenizers of 512 tokens built as the families' own are, trained on a few lines here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
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

Papers = Callable[[Path], tuple[int | None, int]]
"""Writes tokenizer.json and tokenizer_config.json to a folder; returns the bos and eos ids that
its config.json names."""

TEXT = (
    "The river runs through the town and under the old bridge, where the boats wait for the tide.",
    "A letter came from the sea; nobody knows who sent it, and nobody asked. It's only paper.",
    "When the door closed, seven birds flew over the house and the children counted them: 1 2 3.",
    "In the year 1984 there were 250 houses here, 17 shops, and one school with three teachers.",
    "She said it's raining, they're late, we've lost the keys and I'll never find a way home.",
    "Le café est fermé, mais la boulangerie au coin reste ouverte jusqu'à midi. Größe und Straße.",
    "Быстрая лиса прыгает через ленивую собаку. 东京是日本的首都。 مرحبا بالعالم. नमस्ते दुनिया",
    "def answer(question):\n    return question.strip() + '?'\n\n\tif x >= 10:  # a comment\n",
)

SIZE = 512

CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHAT_QWEN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]{% else %}{{ message['content'] }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)


def llama3(folder: Path) -> tuple[int | None, int]:
    """Pieces of up to three digits, whole pieces first, the bos token before a text."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
               "<|eot_id|>"]  # fmt: skip
    tokenizer = _byte_level(CUT % "{1,3}", special, whole_first=True)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                special_tokens=[(special[0], tokenizer.token_to_id(special[0]))],
            ),
        ]
    )
    _save(folder, tokenizer, CHAT_LLAMA3, bos_token=special[0], eos_token=special[1])
    return tokenizer.token_to_id(special[0]), tokenizer.token_to_id(special[1])


def qwen(folder: Path) -> tuple[int | None, int]:
    """Single digits, composed characters, nothing before a text."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _byte_level(CUT % "", special, whole_first=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    _save(
        folder, tokenizer, CHAT_QWEN, bos_token=None, pad_token="<|endoftext|>",
        eos_token={"__type": "AddedToken", "content": "<|im_end|>", "special": True},
        add_bos_token=False,
    )  # fmt: skip
    return None, tokenizer.token_to_id("<|im_end|>")


def mistral(folder: Path) -> tuple[int | None, int]:
    """SentencePiece's BPE as tokenizer.json has it: spaces are `▁`, unknown bytes are tokens."""
    special = ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    few = [line for line in TEXT if line.isascii() and "\n" not in line]
    trained.train_from_iterator(
        few,
        trainers.BpeTrainer(vocab_size=SIZE - 256, special_tokens=special, show_progress=False),
    )
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    merged = {left + right for left, right in merges}
    letters = [text for text in model["vocab"] if text not in merged and text not in special]
    made = list(dict.fromkeys(left + right for left, right in merges))
    order = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *made, *letters]
    vocab = {text: number for number, text in enumerate(order)}
    # What SentencePiece keeps is the order of the tokens; every way to make one is a merge.
    ways = [
        (text[:at], text[at:])
        for text in made
        for at in sorted(
            range(1, len(text)), key=lambda at: (vocab.get(text[:at], 0), vocab.get(text[at:], 0))
        )
        if text[:at] in vocab and text[at:] in vocab
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab, ways, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    _save(folder, tokenizer, CHAT_MISTRAL, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return 1, 2


def _byte_level(cut: str, special: list[str], whole_first: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(cut), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if whole_first:
        value = json.loads(tokenizer.to_str())
        value["model"]["ignore_merges"] = True
        tokenizer = Tokenizer.from_str(json.dumps(value))
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return tokenizer


def _save(folder: Path, tokenizer: Tokenizer, chat: str, **config: Any) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": chat, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n")
