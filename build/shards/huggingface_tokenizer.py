"""`tokenizer_config.json` and its neighbours: the chat template and the texts it uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from build.shards.small_files import parse_json, read_small
from build.shards.source import CheckpointError
from pyodide_node.model.manifest import Chat

__all__ = ["TokenizerConfig", "chat_of", "read_tokenizer_config"]

_MAX_BYTES = 1 << 24
"""Those that repeat a big vocabulary's added tokens take 2 MB."""
_MAX_TEMPLATE_BYTES = 1 << 18


class TokenizerConfig(Struct, kw_only=True):
    """What is read of it; every `<name>_token` lies in `special_tokens`."""

    add_bos_token: bool | None = None
    chat_template: str | list[dict[str, str]] | None = None
    special_tokens: dict[str, str] = {}


def read_tokenizer_config(folder: Path) -> TokenizerConfig:
    """Empty where there is none. Raises `CheckpointError`."""
    name = "tokenizer_config.json"
    data = read_small(folder, name, _MAX_BYTES)
    if data is None:
        return TokenizerConfig()
    said: dict[str, Any] = parse_json(name, data, dict[str, Any])
    known = {key: said.get(key) for key in ("add_bos_token", "chat_template")}
    try:
        config = msgspec.convert(known, TokenizerConfig, strict=True)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{name}: {error}") from None
    config.special_tokens = {
        key: text
        for key, value in said.items()
        if key.endswith("_token") and (text := _text(value)) is not None
    }
    return config


def chat_of(folder: Path, config: TokenizerConfig) -> Chat | None:
    """The template of `chat_template.jinja`, else of the tokenizer's config; of several, the one
    named `default`. Raises `CheckpointError` for one that no manifest holds."""
    name = "chat_template.jinja"
    data = read_small(folder, name, _MAX_TEMPLATE_BYTES)
    template = config.chat_template
    if data is not None:
        try:
            template = data.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{name}: {error}") from None
    if isinstance(template, list):
        named = {one.get("name"): one.get("template") for one in template}
        template = named.get("default")
    return checked_chat(template, config.special_tokens)


def checked_chat(template: str | None, special_tokens: dict[str, str]) -> Chat | None:
    """None for no template. Raises `CheckpointError`."""
    if not template:
        return None
    chat = {"template": template, "special_tokens": special_tokens}
    try:
        return msgspec.convert(chat, Chat, strict=True)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"the chat template: {error}; shorten it or take it out, and the model continues text"
        ) from None


def _text(value: object) -> str | None:
    """A token's text, written as it is or as an object around it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None
