"""`kwaainet model add`: a checkpoint becomes shards."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.filesize import decimal

from build.shards.builder import build
from build.shards.source import Bits, CheckpointError, Source, open_source
from pyodide_node.errors import ConfigError
from pyodide_node.hosts.native.keys import load_keys
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.publisher import sign_manifest
from relay_server.commands.bytes_bar import bytes_bar
from relay_server.commands.node_options import state_directory
from relay_server.commands.private import lock_model
from relay_server.library import Library, plain_name
from relay_server.settings import default_models

__all__ = ["add"]

_INTERRUPTED = 130
"""What shells report for a program ended by Ctrl-C."""

_LOSS = {
    ("Q4_K", 8): 0.005, ("Q5_K", 8): 0.005, ("Q6_K", 8): 0.005,
    ("Q4_K", 4): 0.076, ("Q5_K", 4): 0.082, ("Q6_K", 4): 0.083,
}  # fmt: skip
"""Relative RMS error that rounding anew adds, measured on normal weights; see docs/MODELS.md."""


def add(
    path: Path,
    *,
    name: str | None = None,
    bits: Literal[4, 8, 16, 32] | None = None,
    context: int | None = None,
    license: str | None = None,
    replace: Annotated[bool, Parameter(negative=())] = False,
    private: Annotated[bool, Parameter(negative=())] = False,
    models: Annotated[Path | None, Parameter(show_default=False)] = None,
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
    replace
        Take the place of another model of this name.
    private
        Lock the weights: only those whom you grant the key can run it.
    models
        The models' directory. Default: the one that `kwaainet relay` offers.
    state
        Directory of this machine's node, which signs the model and keeps a private one's key.
    """
    if context is not None and context < 1:
        raise ConfigError("--context must be 1 or more", setting="context")
    library = Library(models or default_models())
    console = Console(stderr=True, highlight=False, emoji=False)
    try:
        with console.status("Reading the checkpoint"):
            source = open_source(path, context)
        name = name or _name_of(path)
        if private:
            _add_private(library, console, source, name, bits, license, state)
        else:
            _add(library, console, source, name, bits, license, replace)
        _sign(library, name, state)
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
    replace: bool,
) -> None:
    out = _place(library, name)
    _tell_source(console, source, name, bits)
    with bytes_bar(console) as tell:
        try:
            built = build(source, out, name, license, tell, bits, replace)
        except CheckpointError as error:
            if not replace and (out / "manifest.json").is_file():
                raise ConfigError(f"{error}: --replace it, or choose another --name") from None
            raise
    if built.fresh:
        _tell_added(console, out, built.manifest)
    else:
        console.print(f"[green]✓[/] {name} is already there, made of the same", soft_wrap=True)
        console.print(f"  model {built.manifest.model_id}", soft_wrap=True)


def _add_private(
    library: Library,
    console: Console,
    source: Source,
    name: str,
    bits: Bits | None,
    license: str | None,
    state: Path | None,
) -> None:
    """Builds in a hidden folder, which no relay offers, and locks it into its own."""
    out = _place(library, name)
    if (out / "manifest.json").is_file():
        # What it was made of cannot be told: its key is new every time.
        raise ConfigError(
            f"there is a model {name} already: remove it first, or choose another --name",
            setting="name",
        )
    _tell_source(console, source, name, bits)
    plain = library.directory / f".{name}.plain"
    with bytes_bar(console) as tell:
        build(source, plain, name, license, tell, bits)
    # Left by a run that was stopped here: locked under a key that is lost.
    shutil.rmtree(out, ignore_errors=True)
    with console.status("Locking the weights"):
        manifest = lock_model(plain, out, state, lambda _what, _done, _of: None)
    _tell_added(console, out, manifest)
    console.print(f"  let others run it: kwaainet model grant {name} THEIR_DID", soft_wrap=True)


def _sign(library: Library, name: str, state: Path | None) -> None:
    """Vouch for the model with this machine's identity."""
    keys = load_keys(state_directory(state) / "identity.pem")
    signed = asyncio.run(sign_manifest(keys, library.manifest(name).model_id))
    path = library.folder(name) / "manifest.sig"
    if not path.is_file() or path.read_bytes() != signed:
        path.write_bytes(signed)


def _place(library: Library, name: str) -> Path:
    """Where the model goes. Raises ConfigError for the place of one that came along."""
    out = library.folder(name)
    if out.is_symlink():
        raise ConfigError(f"{name} came along with KwaaiNet: choose another --name", setting="name")
    return out


def _tell_source(console: Console, source: Source, name: str, bits: Bits | None) -> None:
    s = source.shape
    console.print(
        f"{name}: {s.architecture}, {s.blocks} blocks of width {s.hidden_size}, vocabulary of"
        f" {s.vocab_size}, {s.context_length} positions",
        soft_wrap=True,
    )
    console.print(f"  from {source.format} {_into(source, bits or source.bits)}", soft_wrap=True)


def _tell_added(console: Console, out: Path, manifest: Manifest) -> None:
    size = sum(blob.bytes for blob in manifest.blobs().values())
    console.print(f"[green]✓[/] added {manifest.name}: {decimal(size)} in {out}", soft_wrap=True)
    console.print(f"  model {manifest.model_id}", soft_wrap=True)
    console.print(f"  try it: kwaainet demo --model {manifest.name}", soft_wrap=True)


def _name_of(path: Path) -> str:
    """The folder's name or the file's; of a folder in Hugging Face's cache the repository's."""
    if path.is_file():  # in that cache a link to a file named by its hash
        return _plain_name(path, re.sub(r"-\d{5}-of-\d{5}\Z", "", path.stem))
    real = path.resolve()
    if real.parent.name == "snapshots":
        found = re.fullmatch(r"models--.+?--(.+)", real.parents[1].name)
        if found:
            return _plain_name(path, found[1])
    return _plain_name(path, real.name)


def _plain_name(path: Path, text: str) -> str:
    name = plain_name(text)
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
