"""A model's manifest: every file of the model pinned by sha256, and how the files fit together.

Files are content-addressed ("blobs"): `blobs/<sha256>` in one folder. A model's id is the sha256
of its manifest's bytes, so whoever names the id has named every weight. A manifest comes from
strangers: `decode_manifest` checks every number before anything is sized or indexed by it.

Graphs come in two variants over one set of int4 weight files: `gpu-fp32` reads them as they are
(WebGPU, native ONNX Runtime), `wasm-expanded` reads what `Expansion` makes of them, fp32 and
eight times the memory, because ONNX Runtime's WASM has no fast int4 kernel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import ManifestError

__all__ = [
    "FORMAT",
    "Blob",
    "CopyStep",
    "DequantiseStep",
    "ExpandStep",
    "Expansion",
    "Graphs",
    "Manifest",
    "Reference",
    "Variant",
    "VariantGraphs",
    "decode_manifest",
    "encode_manifest",
]

FORMAT: Final = "kwaainet-manifest/1"

MAX_MANIFEST_BYTES: Final = 1 << 20
"""A manifest of 256 blocks is about 100 kB; ten times that leaves room and bounds the parser."""

MAX_BLOB_BYTES: Final = (1 << 32) - 1
"""A wasm32 heap addresses 4 GiB; a bigger file could not be loaded anywhere in a tab."""

MAX_BLOCKS: Final = 256
MAX_GRAPH_BYTES: Final = 1 << 24
"""Templates are about 4 kB a layer."""

REFERENCE_IDS: Final = 32
BLOCK_SIZE: Final = 32
ALIGN: Final = 64
EXPANSION: Final = 8
"""fp32 over int4."""

Variant = Literal["gpu-fp32", "wasm-expanded"]

_Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Size = Annotated[int, Meta(ge=1, le=MAX_BLOB_BYTES)]
_Offset = Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
_Dim = Annotated[int, Meta(ge=1, le=1 << 22)]
_Id = Annotated[int, Meta(ge=0, lt=1 << 22)]
_Label = Annotated[str, Meta(min_length=1, max_length=100)]


class Blob(Struct, frozen=True, forbid_unknown_fields=True):
    """A file, stored under the name of its hash."""

    sha256: _Sha256
    bytes: _Size


class CopyStep(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="copy"):
    """`length` bytes go from `source` in the int4 file to `target` in the expanded one."""

    source: _Offset
    target: _Offset
    length: _Size


class DequantiseStep(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="q4"):
    """int4 u8[n, k/32, 16] at `source` and scales f32[n * k/32] at `scales` become f32[k, n].

    Weight (row r of n, column c of k) is `(nibble - 8) * scales[r * k/32 + c // 32]`, where the
    nibble is the low half of byte `r * k/2 + c // 2` for even c, the high half for odd c. It goes
    to `target + 4 * (c * n + r)`, little-endian: transposed, as MatMul reads it.
    """

    source: _Offset
    scales: _Offset
    k: _Dim
    n: _Dim
    target: _Offset
    length: _Size


ExpandStep = CopyStep | DequantiseStep
_Steps = Annotated[list[ExpandStep], Meta(min_length=1, max_length=64)]


class Expansion(Struct, frozen=True, forbid_unknown_fields=True):
    """How a weights file becomes the one that the `wasm-expanded` graphs read."""

    layer: _Steps
    head: _Steps


class VariantGraphs(Struct, frozen=True, forbid_unknown_fields=True):
    """The graphs of one variant; `spans` is keyed by the number of blocks, as a string."""

    head: Blob
    spans: dict[str, Blob]


class Graphs(Struct, frozen=True, forbid_unknown_fields=True):
    """`embed` serves every variant; `whole` is the unsplit int4 model, for tests."""

    embed: Blob
    whole: Blob
    variants: dict[Variant, VariantGraphs]


class Reference(Struct, frozen=True, forbid_unknown_fields=True):
    """What the unsplit int4 model says, greedily: a node that differs is broken."""

    prompt: Annotated[str, Meta(min_length=1, max_length=1000)]
    prompt_ids: Annotated[list[_Id], Meta(min_length=1, max_length=256)]
    ids: Annotated[list[_Id], Meta(min_length=REFERENCE_IDS, max_length=REFERENCE_IDS)]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """A model as its files; sizes as in a Llama config, spans are `[first, last)` in blocks."""

    format: Literal["kwaainet-manifest/1"]
    name: _Label
    architecture: Literal["llama"]
    license: _Label
    blocks: Annotated[int, Meta(ge=1, le=MAX_BLOCKS)]
    hidden_size: Annotated[int, Meta(ge=32, le=65536, multiple_of=BLOCK_SIZE)]
    kv_heads: Annotated[int, Meta(ge=1, le=256)]
    head_dim: Annotated[int, Meta(ge=8, le=1024, multiple_of=8)]
    vocab_size: Annotated[int, Meta(ge=2, le=1 << 22)]
    context_length: Annotated[int, Meta(ge=1, le=1 << 20)]
    bos_id: _Id | None
    eos_ids: Annotated[list[_Id], Meta(max_length=16)]
    bits: Literal[4]
    block_size: Literal[32]
    tokenizer: Blob
    rope: Blob
    embed: Blob
    head: Blob
    layers: Annotated[list[Blob], Meta(min_length=1, max_length=MAX_BLOCKS)]
    graphs: Graphs
    expand: Expansion
    reference: Reference

    @property
    def model_id(self) -> str:
        """sha256, in hex, of the manifest's bytes."""
        return hashlib.sha256(encode_manifest(self)).hexdigest()

    def graph(self, variant: Variant, kind: Literal["embed", "head"] | int) -> Blob:
        """The ONNX graph of the embedding, the head, or a span of `kind` blocks."""
        if kind == "embed":
            return self.graphs.embed
        chosen = self.graphs.variants[variant]
        return chosen.head if kind == "head" else chosen.spans[str(kind)]

    def has_span(self, first: int, last: int) -> bool:
        """Whether `[first, last)` is a span of this model, not empty."""
        return 0 <= first < last <= self.blocks

    def span_blobs(self, first: int, last: int) -> dict[str, Blob]:
        """The weights of a span, keyed by the external-data name that its graph reads.

        Raises `ValueError` for a span the model does not have.
        """
        self._require(first, last)
        layers = {f"layer{k}.bin": blob for k, blob in enumerate(self.layers[first:last])}
        return {"rope.bin": self.rope, **layers}

    def span_bytes(self, first: int, last: int, *, expanded: bool) -> int:
        """Bytes of memory that a span's weights take in a session, the rotary table included."""
        self._require(first, last)
        each = _end(self.expand.layer) if expanded else self.layers[0].bytes
        return (last - first) * each + self.rope.bytes

    def head_bytes(self, *, expanded: bool) -> int:
        """Bytes of memory that the head's weights take in a session."""
        return _end(self.expand.head) if expanded else self.head.bytes

    def kv_bytes(self, positions: int, blocks: int) -> int:
        """Bytes of fp32 keys and values of one session over `blocks` blocks."""
        return 2 * 4 * self.kv_heads * self.head_dim * positions * blocks

    def hidden_bytes(self, positions: int) -> int:
        """Bytes of the fp32 hidden states f32[1, positions, hidden_size] at a border."""
        return 4 * self.hidden_size * positions

    def blobs(self) -> dict[str, Blob]:
        """Every file of the model, by hash."""
        variants = self.graphs.variants.values()
        graphs = [g for variant in variants for g in (variant.head, *variant.spans.values())]
        files = [self.tokenizer, self.rope, self.embed, self.head, *self.layers]
        return {
            blob.sha256: blob for blob in (*files, self.graphs.embed, self.graphs.whole, *graphs)
        }

    def _require(self, first: int, last: int) -> None:
        if not self.has_span(first, last):
            raise ValueError(f"no span [{first}, {last}) in a model of {self.blocks} blocks")


_decoder = msgspec.json.Decoder(Manifest, strict=True)
_encoder = msgspec.json.Encoder(order="sorted")


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical JSON: sorted keys, no spaces, UTF-8."""
    return _encoder.encode(manifest)


def decode_manifest(data: bytes) -> Manifest:
    """Parses and checks a manifest; the bytes must be canonical, so that a model has one id.

    Raises `ManifestError`; `data["reason"]` says what does not hold.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise _refusal(f"{len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
    try:
        manifest = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(str(error)) from error
    for reason in _faults(manifest):
        raise _refusal(reason)
    if encode_manifest(manifest) != data:
        raise _refusal("not in canonical form (sorted keys, no spaces)")
    return manifest


def _refusal(reason: str) -> ManifestError:
    return ManifestError(
        f"This model cannot be trusted: its manifest is wrong ({reason}). "
        "Fetch it again from another peer, or choose another model.",
        reason=reason,
    )


def _faults(m: Manifest) -> Iterable[str]:
    """What no single field can show to be wrong."""
    if len(m.layers) != m.blocks:
        yield f"{len(m.layers)} layer files for {m.blocks} blocks"
    if len({layer.bytes for layer in m.layers}) > 1:
        yield "layer files of different sizes, so that one graph cannot read them all"
    if set(m.graphs.variants) != {"gpu-fp32", "wasm-expanded"}:
        yield "a graph variant is missing"
    spans = {str(count) for count in range(1, m.blocks + 1)}
    for name, variant in m.graphs.variants.items():
        if set(variant.spans) != spans:
            yield f"{name} has not one graph for each span of 1 to {m.blocks} blocks"
        if any(g.bytes > MAX_GRAPH_BYTES for g in (variant.head, *variant.spans.values())):
            yield f"a graph of {name} is larger than {MAX_GRAPH_BYTES} bytes"
    if max(m.graphs.embed.bytes, m.graphs.whole.bytes) > MAX_GRAPH_BYTES:
        yield f"a graph is larger than {MAX_GRAPH_BYTES} bytes"
    if m.rope.bytes > 4 * m.context_length * m.head_dim + 2 * ALIGN:
        yield "a rotary table longer than the context"
    ids = [*m.eos_ids, *m.reference.prompt_ids, *m.reference.ids]
    if m.bos_id is not None:
        ids.append(m.bos_id)
    if max(ids) >= m.vocab_size:
        yield f"token id {max(ids)} outside the vocabulary of {m.vocab_size}"
    if len(m.reference.prompt_ids) + len(m.reference.ids) > m.context_length:
        yield "a reference longer than the context"
    yield from _expansion_faults("layer", m.expand.layer, m.layers[0].bytes)
    yield from _expansion_faults("head", m.expand.head, m.head.bytes)


def _expansion_faults(what: str, steps: list[ExpandStep], size: int) -> Iterable[str]:
    end = 0
    for number, step in enumerate(steps):
        where = f"expansion step {number} of the {what}"
        if step.target < end or step.target % 4:
            yield f"{where} overlaps the one before it, or is not aligned"
        end = step.target + step.length
        read = step.length
        if isinstance(step, DequantiseStep):
            if step.k % BLOCK_SIZE or step.length != 4 * step.k * step.n:
                yield f"{where} does not add up"
            read = step.k * step.n // 2
            if step.scales % 4 or step.scales + 4 * step.k * step.n // BLOCK_SIZE > size:
                yield f"{where} has its scales outside the file"
        if step.source + read > size:
            yield f"{where} reads past the file"
    # Without this a small file whose bytes are read again and again could fill a peer's memory.
    if end > EXPANSION * size + ALIGN * len(steps):
        yield f"the {what} would expand to {end} bytes"


def _end(steps: list[ExpandStep]) -> int:
    return steps[-1].target + steps[-1].length
