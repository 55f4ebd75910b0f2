"""`kwaainet model`: bring a checkpoint, look at what is here, check it, remove it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.prompt import Confirm
from rich.table import Table

from build.shards.builder import build
from build.shards.source import Bits, CheckpointError, Source, open_source
from pyodide_node.errors import ConfigError, KwaaiNetError
from pyodide_node.inference.manifest import Manifest
from pyodide_node.inference.pieces import cid
from relay_server.commands.private import grant, grants, lock_model, revoke
from relay_server.library import Library, plain_name
from relay_server.settings import default_models

__all__ = ["app"]

app = App(name="model", help="Models on this machine: add, look at, check, plan and remove them.")

Models = Annotated[Path | None, Parameter(show_default=False)]

_INTERRUPTED = 130
"""What shells report for a program ended by Ctrl-C."""

_LOSS = {
    ("Q4_K", 8): 0.005, ("Q5_K", 8): 0.005, ("Q6_K", 8): 0.005,
    ("Q4_K", 4): 0.076, ("Q5_K", 4): 0.082, ("Q6_K", 4): 0.083,
}  # fmt: skip
"""Relative RMS error that rounding anew adds, measured on normal weights; see docs/MODELS.md."""


@app.command
def add(
    path: Path,
    *,
    name: str | None = None,
    bits: Literal[4, 8, 16, 32] | None = None,
    context: int | None = None,
    license: str | None = None,
    private: bool = False,
    models: Models = None,
    state: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> None:
    """Turn a checkpoint into shards that tabs and nodes serve.

    It may be stopped at any time: the same command goes on where it was.

    Parameters
    ----------
    path
        A folder as Hugging Face publishes it (config.json, tokenizer.json, *.safetensors), or a
        GGUF file. Llama, Mistral, Qwen2 and Qwen3.
    name
        What the model is called here. Default: as the folder or file.
    bits
        Of a weight. Default: 4, or what keeps all that a GGUF file has.
    context
        Serve at most so many positions. Default: as many as the model was made for.
    license
        SPDX name. Default: what the model card or the file says.
    private
        Lock the weights: only those whom you grant the key can run it.
    models
        The models' directory. Default: the one that `kwaainet relay` offers.
    state
        Directory of this machine's node, which keeps a private model's key.
    """
    if context is not None and context < 1:
        raise ConfigError("--context must be 1 or more", setting="context")
    library = Library(models or default_models())
    console = Console(stderr=True, highlight=False, emoji=False)
    try:
        with console.status("Reading the checkpoint"):
            source = open_source(path, context)
        name = name or _name_of(path)
        _add(library, console, source, name, bits, license, private, state)
    except KeyboardInterrupt:
        console.print("Stopped. What is done is kept: run the same command again to go on.")
        raise SystemExit(_INTERRUPTED) from None


def _add(
    library: Library,
    console: Console,
    source: Source,
    name: str,
    bits: Bits | None,
    license: str | None,
    private: bool,
    state: Path | None,
) -> None:
    out = library.folder(name)
    there = library.find(name) if out.is_dir() else None
    if private and there is not None:
        raise ConfigError(
            f"there is a model {name} already: remove it first, or choose another --name",
            setting="name",
        )
    s = source.shape
    console.print(
        f"{name}: {s.architecture}, {s.blocks} blocks of width {s.hidden_size}, vocabulary of"
        f" {s.vocab_size}, {s.context_length} positions",
        soft_wrap=True,
    )
    console.print(f"  from {source.format} {_into(source, bits or source.bits)}", soft_wrap=True)
    plain = library.directory / f".{name}.plain" if private else out
    with _bytes_bar(console) as bar:
        task = bar.add_task("reading", total=None)

        def tell(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        built = build(source, plain, name, license, tell, bits)
        manifest = built.manifest
        if private:
            bar.reset(task)
            manifest = lock_model(plain, out, state, tell)
    size = sum(blob.bytes for blob in manifest.blobs().values())
    if built.fresh:
        console.print(f"[green]✓[/] added {name}: {size / 1e6:.1f} MB in {out}", soft_wrap=True)
    else:
        console.print(f"[green]✓[/] {name} is already there, made of the same", soft_wrap=True)
    console.print(f"  model {manifest.model_id}", soft_wrap=True)
    console.print(f"  try it: kwaainet demo --model {name}; plan it: kwaainet model split {name}")
    if private:
        console.print(f"  let others run it: kwaainet model grant {name} THEIR_DID", soft_wrap=True)


@app.command(name="list")
def list_models(*, models: Models = None) -> None:
    """List the models that a relay of this machine offers."""
    library = Library(models or default_models())
    table = Table("name", "family", "blocks", "bits", "context", "MB", "license", box=None)
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
            str(manifest.context_length), f"{size / 1e6:.1f}",
            manifest.license + (", private" if manifest.private else ""),
        )  # fmt: skip
    console = Console(highlight=False, emoji=False)
    if table.row_count:
        console.print(table)
    else:
        console.print(f"No models in {library.directory}; add one: kwaainet model add PATH")


@app.command
def show(name: str, *, models: Models = None) -> None:
    """Tell everything about a model: sizes, files, variants, licence."""
    library = Library(models or default_models())
    manifest = library.manifest(name)
    console = Console(highlight=False, emoji=False)
    grid = Table.grid(padding=(0, 2))
    for key, value in _facts(manifest):
        grid.add_row(key, value)
    console.print(grid, soft_wrap=True)


@app.command
def verify(name: str, *, models: Models = None) -> None:
    """Read every file of a model and compare it with the manifest; exit with 1 if one is off."""
    library = Library(models or default_models())
    manifest = library.manifest(name)
    console = Console(highlight=False, emoji=False)
    blobs = manifest.blobs().values()
    with _bytes_bar(Console(stderr=True)) as bar:
        task = bar.add_task("reading", total=sum(blob.bytes for blob in blobs))
        faults = library.verify(name, lambda count: bar.advance(task, count))
    for fault in faults:
        console.print(f"[red]✗[/] {fault.what} ({fault.blob.sha256[:12]}…): {fault.reason}")
    if faults:
        console.print(f"{name} is broken: run `kwaainet model add` again, which makes what is off")
        raise SystemExit(1)
    console.print(f"[green]✓[/] {name}: {len(blobs)} files are what model {manifest.model_id} says")


@app.command
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


for _command in (grant, revoke, grants):
    app.command(_command)


@contextmanager
def _bytes_bar(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield bar


def _name_of(path: Path) -> str:
    """The folder's name or the file's; of a folder in Hugging Face's cache the repository's."""
    real = path.resolve()
    if real.parent.name == "snapshots":
        found = re.fullmatch(r"models--.+?--(.+)", real.parents[1].name)
        if found:
            return plain_name(found[1])
    name = plain_name(real.stem if real.is_file() else real.name)
    if not name:
        raise CheckpointError(f"{path} gives the model no name: choose one with --name")
    return name


def _into(source: Source, bits: Bits) -> str:
    """What becomes of the weights, and what is lost of them."""
    kind = source.format.removeprefix("GGUF ")
    text = f"to weights of {bits} bits"
    for (of, to), loss in _LOSS.items():
        if source.format.startswith("GGUF") and kind.startswith(of) and to == bits:
            text += f", {of} rounded anew (relative error {loss:.1%})"
            if bits == 8:
                text += "; --bits 4 takes half the memory"
    if (kind, bits) in (("Q4_0", 4), ("Q8_0", 8)):
        text += ", without loss"
    return text


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
    yield "a layer", f"{m.layers[0].bytes / 1e6:.1f} MB, of {m.blocks}"
    ends = {"embedding": m.embed, "head": m.head}
    if m.embed == m.head:
        ends = {"embedding and head": m.embed}
    for what, blob in ends.items():
        yield what, f"{blob.bytes / 1e6:.1f} MB, {cid(blob)}"
    largest = max(m.layers, key=lambda blob: blob.bytes)
    yield f"layer {m.layers.index(largest)}", cid(largest)
    total = sum(blob.bytes for blob in m.blobs().values())
    yield "in all", f"{total / 1e6:.1f} MB in {len(m.blobs())} files"
