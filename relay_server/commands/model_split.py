"""`kwaainet model split`: which blocks of a model fit into which memory, told before anything is
loaded or even converted."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from cyclopts import Parameter
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from build.shards.plan import plan_checkpoint
from build.shards.source import Bits
from pyodide_node.budget import MEGABYTE, RUNTIME_MEMORY
from pyodide_node.errors import ConfigError
from pyodide_node.hosts.base import EngineName, HostKind
from pyodide_node.model.footprint import Footprint, native_engines, wasm_engines
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.plan import Plan, plan
from relay_server.library import Library
from relay_server.settings import default_models

__all__ = ["split"]

NodeKind = Literal["webgpu", "webgpu-fp16", "wasm", "native"]
"""A tab with a GPU, with one that computes in half precision, without one; a native node."""

_CAPS: Final = (1024, 2048, 4096, 8192)
_MEMORY: Final = (64, 1 << 20)
"""Caps that make sense, in megabytes."""

_SPANS = re.compile(r"\d{1,3}-\d{1,3}(,\d{1,3}-\d{1,3}){0,255}\Z", re.ASCII)


def split(
    model: str,
    *,
    spans: str | None = None,
    memory: Annotated[tuple[int, ...], Parameter(negative=(), show_default=False)] = (),
    engine: Annotated[tuple[NodeKind, ...], Parameter(negative=(), show_default=False)] = (),
    bits: Bits | None = None,
    context: int | None = None,
    models: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> None:
    """Plan how tabs and nodes share a model: what fits which memory, and what spans take.

    Parameters
    ----------
    model
        A model as `kwaainet model list` has it, or a checkpoint that is not added yet: a folder
        with config.json, or a GGUF file.
    spans
        Spans of blocks to hold, as 0-8,8-16.
    memory
        Memory caps in megabytes, as in data-max-resources; may be repeated. Default: 1024, 2048,
        4096 and 8192.
    engine
        What nodes compute on; may be repeated. Default: every one.
    bits
        Of a weight, for a checkpoint that is not added yet.
    context
        Positions served, for a checkpoint that is not added yet.
    models
        The models' directory.
    """
    if any(not _MEMORY[0] <= cap <= _MEMORY[1] for cap in memory):
        raise ConfigError(
            f"--memory takes megabytes, {_MEMORY[0]} to {_MEMORY[1]}", setting="memory"
        )
    manifest = _manifest(Library(models or default_models()), model, bits, context)
    nodes = [
        node
        for node in engine or get_args(NodeKind)
        if node != "webgpu-fp16" or "gpu-fp16" in manifest.graphs.variants
    ]
    wanted = None if spans is None else _parsed(manifest, spans)
    ends = {blob.sha256: blob.bytes for blob in (manifest.embed, manifest.head)}
    console = Console(highlight=False, emoji=False)
    console.print(
        f"{manifest.name}: {manifest.blocks} blocks of {decimal(manifest.layers[0].bytes)}"
        f" ({manifest.bits} bits), embedding and head {decimal(sum(ends.values()))}"
        f" ({manifest.ends_bits} bits). A node keeps room for a session of"
        f" {Footprint(manifest, 'webgpu').session_positions} positions.",
        soft_wrap=True,
    )
    if wanted is None:
        console.print(_memory_table(manifest, memory or _CAPS, nodes))
        return
    console.print(_span_table(manifest, wanted, nodes))
    missing = _missing(manifest, wanted)
    if missing:
        console.print(f"[yellow]in no span: blocks {', '.join(missing)}")


def _memory_table(manifest: Manifest, caps: Sequence[int], nodes: list[NodeKind]) -> Table:
    """Of a node of each cap and kind: the blocks it takes, and how many like it make the whole."""
    table = _table("memory", "node", "engine", "blocks", "weights", "session", "loading",
                   "nodes", "asks")  # fmt: skip
    for cap in caps:
        for node in nodes:
            chosen = _plan(manifest, node, cap * MEGABYTE)
            of, blocks = Footprint(manifest, chosen.engine), chosen.blocks
            asks = "no"
            if chosen.ends is not None:
                asks = _megabytes(chosen.ends.total) + "*" * chosen.ends.stored
            sizes: tuple[str, ...] = ("–",) * 4
            if blocks:
                sizes = *_sizes(of, 0, blocks), str(-(-manifest.blocks // blocks))
            table.add_row(str(cap), node, chosen.engine if blocks else "–", str(blocks), *sizes,
                          asks)  # fmt: skip
    table.caption = (
        "In megabytes. nodes: so many like it hold the whole model. asks: what embedding and head"
        " take; * with rows of the embedding read from storage."
    )
    table.caption_justify = "left"
    return table


def _span_table(manifest: Manifest, spans: list[tuple[int, int]], nodes: list[NodeKind]) -> Table:
    """Of each span on each kind of node: what it takes, and the least cap that holds it."""
    table = _table("span", "node", "engine", "download", "weights", "session", "loading", "memory")
    for first, last in spans:
        files = sum(blob.bytes for blob in manifest.span_blobs(first, last).values())
        for node in nodes:
            cap = _least(manifest, last - first, node)
            if cap is None:
                table.add_row(f"{first}-{last}", node, "–", _megabytes(files), *"––––")
                continue
            name = _plan(manifest, node, cap * MEGABYTE).engine
            sizes = _sizes(Footprint(manifest, name), first, last)
            table.add_row(f"{first}-{last}", node, name, _megabytes(files), *sizes, str(cap))
    table.caption = (
        "In megabytes. memory: the least cap with which a node takes so many blocks; –: whatever"
        " its cap, such a node does not."
    )
    table.caption_justify = "left"
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))  # 80 columns hold it
    for name in columns:
        text = name in ("span", "node", "engine")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    return table


def _sizes(of: Footprint, first: int, last: int) -> tuple[str, str, str]:
    """Weights, keys and values of a session, and the most at once while it loads."""
    session = of.session(of.session_positions, last - first)
    sizes = of.span(first, last), session, of.loading(first, last)
    weights, kept, loading = map(_megabytes, sizes)
    return weights, kept, loading


def _megabytes(size: int) -> str:
    return str(-(-size // MEGABYTE))


def _least(manifest: Manifest, blocks: int, node: NodeKind) -> int | None:
    """The smallest cap, in megabytes, with which a node takes so many blocks; None where none is
    enough, as in a WASM engine, whose memory ends at 4 GB."""
    kind, engines = _kind(manifest, node)
    least = min(Footprint(manifest, name).serving(blocks) for name in engines)
    alone = -(-(RUNTIME_MEMORY[kind] + least) // MEGABYTE)

    def holds(cap: int) -> bool:
        return _plan(manifest, node, cap * MEGABYTE).blocks >= blocks

    if holds(alone):  # too small for embedding and head besides
        return alone
    low, high = alone, 2 * alone
    while not holds(high):
        low, high = high, 2 * high
        if high > _MEMORY[1]:
            return None
    return bisect_left(range(high), True, lo=low + 1, key=holds)


def _plan(manifest: Manifest, node: NodeKind, memory: int) -> Plan:
    kind, engines = _kind(manifest, node)
    return plan(manifest, engines, kind, memory)


def _kind(manifest: Manifest, node: NodeKind) -> tuple[HostKind, Sequence[EngineName]]:
    """What runs there, as the hosts have it."""
    match node:
        case "wasm":
            return "tab", wasm_engines(manifest)
        case "native":
            return "native", native_engines(manifest)
        case _:
            return "tab", (node,)


def _manifest(library: Library, model: str, bits: Bits | None, context: int | None) -> Manifest:
    """Of a model here, else of a checkpoint. Raises ConfigError, CheckpointError."""
    if context is not None and context < 1:
        raise ConfigError("--context must be 1 or more", setting="context")
    path = Path(model)
    if model in library.names():
        if bits is not None or context is not None:
            raise ConfigError(
                f"{model} is added already: its bits and context stand; give the checkpoint's path"
                " to plan others",
                setting="bits",
            )
        return library.manifest(model)
    if path.exists():
        return plan_checkpoint(path, bits, context)
    return library.manifest(model)


def _parsed(manifest: Manifest, text: str) -> list[tuple[int, int]]:
    if not _SPANS.match(text):
        raise ConfigError(f"--spans {text[:80]!r} is not of the form 0-8,8-16", setting="spans")
    spans = []
    for part in text.split(","):
        first, last = map(int, part.split("-"))
        if not manifest.has_span(first, last):
            raise ConfigError(
                f"--spans: {part[:40]} is no span of {manifest.blocks} blocks; the end is not"
                f" included, so that all of them are 0-{manifest.blocks}",
                setting="spans",
            )
        spans.append((first, last))
    return spans


def _missing(manifest: Manifest, spans: list[tuple[int, int]]) -> list[str]:
    """Ranges of blocks that no span has."""
    held = {block for first, last in spans for block in range(first, last)}
    missing, at = [], 0
    while at < manifest.blocks:
        end = at
        while end < manifest.blocks and end not in held:
            end += 1
        if end > at:
            missing.append(f"{at}-{end}")
        at = max(end, at + 1)
    return missing
