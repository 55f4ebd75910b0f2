"""A tokenizer.json, opened without trusting it, and what it puts before plain text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tokenizers import Tokenizer

from build.shards.source import CheckpointError

__all__ = ["MAX_TOKENIZER_BYTES", "first_id", "guarded", "open_tokenizer"]

MAX_TOKENIZER_BYTES = 1 << 26
"""The largest published ones, of 256k tokens, take 33 MB."""

_PLAIN = "a"


def open_tokenizer(data: bytes, vocab_size: int) -> Tokenizer:
    """Raises `CheckpointError` where it is broken, or has ids that the model does not."""
    with guarded("tokenizer.json"):
        tokenizer = Tokenizer.from_str(data.decode())
        largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest < vocab_size:
        raise CheckpointError(
            f"tokenizer.json: token id {largest} outside the vocabulary of {vocab_size}:"
            " it belongs to another model"
        )
    return tokenizer


def first_id(tokenizer: Tokenizer) -> int | None:
    """The id put before plain text by the tokenizer's own post-processor; None: nothing is."""
    with guarded("tokenizer.json"):
        whole = tokenizer.encode(_PLAIN, add_special_tokens=True).ids
        plain = tokenizer.encode(_PLAIN, add_special_tokens=False).ids
    if whole == plain:
        return None
    if whole[1 : 1 + len(plain)] != plain:
        raise CheckpointError(
            "tokenizer.json: it puts more than one token before plain text, which is not supported"
        )
    return int(whole[0])


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Whatever the library raises is the file's fault: `CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as error:
        # A panic in the library's Rust is no Exception, yet it stops nothing but this file.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise CheckpointError(f"{what} is broken: {error!s:.300}") from None
        raise
