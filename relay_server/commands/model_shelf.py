"""`kwaainet model list`, `show`, `verify` and `remove`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.filesize import decimal
from rich.prompt import Confirm
from rich.table import Table

from pyodide_node.errors import ConfigError, KwaaiNetError
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.pieces import cid
from relay_server.commands.bytes_bar import bytes_bar
from relay_server.library import Library
from relay_server.settings import default_models

__all__ = ["list_models", "remove", "show", "verify"]

Models = Annotated[Path | None, Parameter(show_default=False)]


def list_models(*, models: Models = None) -> None:
    """List the models that a relay of this machine offers."""
    library = Library(models or default_models())
    table = Table("name", "family", "blocks", "bits", "context", "size", "license", box=None)
    for name in library.names():
        try:
            manifest = library.find(name)
        except KwaaiNetError as error:
            table.add_row(name, f"[red]broken: {error.data.get('reason', error)}")
            continue
        if manifest is None:
            table.add_row(name, "[yellow]not finished: add it again")
            continue
        size = sum(blob.bytes for blob in manifest.blobs().values())
        table.add_row(
            name, manifest.architecture, str(manifest.blocks), str(manifest.bits),
            str(manifest.context_length), decimal(size),
            manifest.license + (", private" if manifest.private else ""),
        )  # fmt: skip
    console = Console(highlight=False, emoji=False)
    if table.row_count:
        console.print(table)
    else:
        text = f"No models in {library.directory}; add one: kwaainet model add PATH"
        console.print(text, soft_wrap=True)


def show(name: str, *, models: Models = None) -> None:
    """Tell everything about a model: sizes, files, variants, licence."""
    library = Library(models or default_models())
    manifest = library.manifest(name)
    console = Console(highlight=False, emoji=False)
    for key, value in _facts(manifest):
        console.print(f"{key:20}{value}", soft_wrap=True)


def verify(name: str, *, models: Models = None) -> None:
    """Read every file of a model and compare it with the manifest; exit with 1 if one is off."""
    library = Library(models or default_models())
    manifest = library.manifest(name)
    console = Console(highlight=False, emoji=False)
    blobs = manifest.blobs().values()
    total, done = sum(blob.bytes for blob in blobs), 0
    with bytes_bar(Console(stderr=True)) as tell:

        def read(count: int) -> None:
            nonlocal done
            done += count
            tell("reading", done, total)

        faults = library.verify(name, read)
    for fault in faults:
        console.print(f"[red]✗[/] {fault.what} ({fault.blob.sha256[:12]}…): {fault.reason}")
    if faults:
        console.print(f"{name} is broken: remove it and add it again")
        raise SystemExit(1)
    console.print(
        f"[green]✓[/] {name}: {len(blobs)} files are what model {manifest.model_id} says",
        soft_wrap=True,
    )


def remove(
    name: str,
    *,
    yes: Annotated[bool, Parameter(alias="-y", negative=())] = False,
    models: Models = None,
) -> None:
    """Remove a model from this machine.

    Parameters
    ----------
    name
        The model, as `kwaainet model list` has it.
    yes
        Do not ask.
    models
        The models' directory.
    """
    library = Library(models or default_models())
    if name not in library.names():
        library.manifest(name)
    console = Console(highlight=False, emoji=False)
    if not yes:
        if not console.is_terminal:
            raise ConfigError(f"say --yes to remove {name} without being asked", setting="yes")
        if not Confirm.ask(f"Remove {name} and all of its files?", console=console, default=False):
            console.print("Kept.")
            return
    library.remove(name)
    shutil.rmtree(library.directory / f".{name}.plain", ignore_errors=True)
    console.print(f"Removed {name}.")


def _facts(m: Manifest) -> Iterator[tuple[str, str]]:
    yield "name", m.name
    yield "model", m.model_id
    yield "license", m.license + (", private: its weights are locked" if m.private else "")
    yield "family", m.architecture
    yield "blocks", f"{m.blocks}, width {m.hidden_size}, {m.kv_heads} kv heads of {m.head_dim}"
    yield "vocabulary", str(m.vocab_size)
    yield "context", f"{m.context_length} positions"
    yield "bits", f"{m.bits} of a weight, {m.ends_bits} in embedding and head"
    yield "variants", ", ".join(sorted(m.graphs.variants))
    yield "chat template", "yes" if m.chat else "no"
    if m.generation:
        said = {key: getattr(m.generation, key) for key in m.generation.__struct_fields__}
        told = ", ".join(f"{k} {v:g}" for k, v in said.items() if v is not None)
        yield "sampling", told
    yield "a layer", f"{decimal(m.layers[0].bytes)}, of {m.blocks}"
    ends = {"embedding": m.embed, "head": m.head}
    if m.embed == m.head:
        ends = {"embedding and head": m.embed}
    for what, blob in ends.items():
        yield what, f"{decimal(blob.bytes)}, {cid(blob)}"
    largest = max(m.layers, key=lambda blob: blob.bytes)
    yield f"layer {m.layers.index(largest)}", cid(largest)
    total = sum(blob.bytes for blob in m.blobs().values())
    yield "in all", f"{decimal(total)} in {len(m.blobs())} files"
