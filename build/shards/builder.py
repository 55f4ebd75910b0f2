"""Checkpoint in, folder of blobs and a manifest out; the same checkpoint gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from build.shards.blobs import Blobs, write_whole
from build.shards.graphs import GraphMaker
from build.shards.layout import Part, Slot, expansion, integers, lay_out, size_of
from build.shards.ledger import Ledger
from build.shards.plan import plan_shape
from build.shards.reference import find_reference
from build.shards.rope import rotary_tables
from build.shards.source import Bits, CheckpointError, Progress, Source, silent
from build.shards.weights import (
    check_blocks,
    contents,
    embed_parts,
    ends_bits,
    head_parts,
    layer_parts,
)
from pyodide_node.errors import ManifestError
from pyodide_node.model.manifest import (
    ALIGN,
    FORMAT,
    Blob,
    Expansion,
    Graphs,
    Manifest,
    Variant,
    VariantGraphs,
    decode_manifest,
    encode_manifest,
)

__all__ = ["MANIFEST", "Built", "build", "stream"]

MANIFEST = "manifest.json"
RECEIPT = "built-from.json"
"""What the folder was built from, so that a second run has nothing to do."""
UNFINISHED = "unfinished.json"
"""What a build that was cut off has made."""


@dataclass(frozen=True, slots=True)
class Built:
    """The outcome: the manifest, and whether it was there already."""

    manifest: Manifest
    fresh: bool


def build(
    source: Source,
    out: Path,
    name: str,
    license: str | None = None,
    progress: Progress = silent,
    bits: Bits | None = None,
    replace: bool = True,
) -> Built:
    """Writes `out/manifest.json` and `out/blobs/<sha256>`; does nothing when they are current.

    Without `replace` a model made of something else stays, and that is a `CheckpointError`.

    `license` defaults to the one in the checkpoint's model card, `bits` (of a weight) to what the
    source has. A build that was cut off goes on where it was. Memory: a few matrices, or a whole
    model of at most `WHOLE_BYTES`. Raises `CheckpointError`.
    """
    license = license or source.license
    if not license:
        raise CheckpointError(
            "no licence: name it (--license), or in the model card's front matter"
        )
    bits = bits or source.bits
    check_blocks(source.shape, bits)
    inputs = _inputs(source, name, license, bits, progress)
    old = _current(out, inputs)
    if old:
        return Built(old, fresh=False)
    if not replace and (out / MANIFEST).is_file() and _receipt(out) != inputs:
        raise CheckpointError(
            f"{out} has a model made of something else, or by another version of this builder"
        )
    blobs = Blobs(out / "blobs")
    ledger = Ledger(out / UNFINISHED, inputs, blobs)
    manifest = _Build(source, bits, blobs, ledger, progress).run(name, license)
    data = encode_manifest(manifest)
    try:
        decode_manifest(data)
    except ManifestError as error:
        raise CheckpointError(f"no node would take this model: {error.data['reason']}") from error
    write_whole(out / MANIFEST, data)
    write_whole(out / RECEIPT, json.dumps({"inputs": inputs}).encode())
    ledger.close()
    blobs.keep_only(manifest.blobs())
    return Built(manifest, fresh=True)


class _Build:
    def __init__(
        self, source: Source, bits: Bits, blobs: Blobs, ledger: Ledger, progress: Progress
    ) -> None:
        self._source = source
        self._shape = source.shape
        self._bits = bits
        self._ends = ends_bits(source.shape, bits)
        self._blobs = blobs
        self._ledger = ledger
        self._progress = progress
        shape = source.shape
        self._embed = embed_parts(shape, self._ends)
        self._head = head_parts(shape, self._ends)
        self._layers = [layer_parts(shape, index, bits) for index in range(shape.blocks)]
        files = [self._embed, self._head, *self._layers]
        # Each is written once and read once, for the reference.
        self._all = 2 * sum(size_of(lay_out(parts)) for parts in files)
        self._done = 0

    def run(self, name: str, license: str) -> Manifest:
        source, shape = self._source, self._shape
        rope_slots, rope = self._rope()
        embed = self._file("embedding", self._embed)
        head = embed if shape.tied else self._file("head", self._head)
        layers = [
            self._file(f"layer {index + 1} of {shape.blocks}", parts)
            for index, parts in enumerate(self._layers)
        ]
        draft = msgspec.structs.replace(
            plan_shape(shape, self._bits, name),
            name=name,
            license=license,
            bos_id=source.bos_id,
            eos_ids=source.eos_ids,
            tokenizer=self._blobs.put([source.tokenizer()]),
            rope=rope,
            embed=embed,
            head=head,
            layers=layers,
            graphs=self._graphs(rope_slots),
            chat=source.chat,
            generation=source.generation,
        )
        reference = find_reference(source, draft, self._blobs, self._tell)
        self._progress("reference", self._all, self._all)
        return msgspec.structs.replace(draft, reference=reference)

    def _file(self, what: str, parts: list[Part]) -> Blob:
        """One weights file, unless an earlier run has made it."""
        blob = self._ledger.find(what)
        if blob:
            self._tell(what, blob.bytes)
        else:
            tell = partial(self._tell, what)
            blob = self._blobs.put(stream(self._source, parts, tell))
            self._ledger.add(what, blob)
        return blob

    def _graphs(self, rope: list[Slot]) -> Graphs:
        layer, head = lay_out(self._layers[0]), lay_out(self._head)
        wide_layer, layer_steps = expansion(layer)
        wide_head, head_steps = expansion(head)
        embed, shape = lay_out(self._embed), self._shape
        single = GraphMaker(shape, "single", rope=rope, embed=embed, layer=layer, head=head)
        half = GraphMaker(shape, "half", rope=rope, embed=embed, layer=layer, head=head)
        wide = GraphMaker(shape, "single", rope=rope, embed=embed, layer=wide_layer, head=wide_head)
        expand = Expansion(layer=layer_steps, head=head_steps)
        variants: dict[Variant, VariantGraphs] = {
            "gpu-fp32": self._variant(single, None),
            "gpu-fp16": self._variant(half, None),
            "wasm-expanded": self._variant(wide, expand),
        }
        if any(slot.kind == "packed" for slot in layer):  # wider weights are there to be exact
            whole_layer, layer_steps = integers(layer)
            whole_head, head_steps = integers(head)
            whole = GraphMaker(
                shape, "single", rope=rope, embed=embed, layer=whole_layer, head=whole_head
            )
            expand = Expansion(layer=layer_steps, head=head_steps)
            variants["wasm-int8"] = self._variant(whole, expand)
        return Graphs(
            embed=self._blobs.put([single.embed()]),
            whole=self._blobs.put([single.whole()]),
            variants=variants,
        )

    def _variant(self, maker: GraphMaker, expand: Expansion | None) -> VariantGraphs:
        spans = {
            str(count): self._blobs.put([maker.span(count)])
            for count in range(1, self._shape.blocks + 1)
        }
        return VariantGraphs(head=self._blobs.put([maker.head()]), spans=spans, expand=expand)

    def _rope(self) -> tuple[list[Slot], Blob]:
        """Rotary tables, no longer than the positions served."""
        s = self._shape
        tables = rotary_tables(s.context_length, s.head_dim, s.rope_theta, s.rope_scaling)
        slots: list[Slot] = []
        file = bytearray()
        for name, table in zip(("cos", "sin"), tables, strict=True):
            file.extend(bytes(-len(file) % ALIGN))
            slots.append(Slot(name, "rows", "float32", table.shape, len(file)))
            file.extend(np.ascontiguousarray(table, "<f4").tobytes())
        return slots, self._blobs.put([bytes(file)])

    def _tell(self, what: str, size: int) -> None:
        self._done += size
        self._progress(what, min(self._done, self._all), self._all)


def stream(
    source: Source, parts: list[Part], tell: Callable[[int], None] = lambda _size: None
) -> Iterator[bytes | memoryview]:
    """The bytes of a weights file in order; `tell` hears of each piece when it has been taken."""
    at = 0
    for slot, chunks in contents(source, parts):
        yield bytes(slot.offset - at)
        for chunk in chunks:
            yield chunk
            tell(len(chunk))
        at = slot.end


def _inputs(source: Source, name: str, license: str, bits: Bits, progress: Progress) -> str:
    """A hash over everything that decides the output, this package's own code included."""
    total = hashlib.sha256(
        f"{FORMAT} {name} {license} {bits} {source.shape} {source.digest(progress)}".encode()
    )
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def _receipt(out: Path) -> str | None:
    """What the model in `out` was built from, as `_inputs` tells it."""
    try:
        said = json.loads((out / RECEIPT).read_bytes())
    except (OSError, ValueError):
        return None
    return said.get("inputs") if isinstance(said, dict) else None


def _current(out: Path, inputs: str) -> Manifest | None:
    """The manifest in `out` if it was built from the same inputs and no file is missing."""
    if _receipt(out) != inputs:
        return None
    try:
        manifest = decode_manifest((out / MANIFEST).read_bytes())
        for digest, blob in manifest.blobs().items():
            if (out / "blobs" / digest).stat().st_size != blob.bytes:
                return None
    except (OSError, ValueError, ManifestError):
        return None
    return manifest
