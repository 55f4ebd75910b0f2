"""A model's manifest: every file of the model pinned by sha256, and how the files fit together.

Files are content-addressed ("blobs"): `blobs/<sha256>` in one folder. A model's id is the sha256
of its manifest's bytes, so whoever names the id has named every weight. A manifest comes from
strangers: `decode_manifest` checks every number before anything is sized or indexed by it.

Graphs come in variants over one set of weight files: `gpu-fp32` reads them as they are (WebGPU,
native ONNX Runtime), `gpu-fp16` too but computes in half precision, `wasm-expanded` and `wasm-int8`
read what their `Expansion` makes of them, because ONNX Runtime's WASM has no fast int4 kernel.
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
    "Chat",
    "CopyStep",
    "DequantiseBytesStep",
    "DequantiseStep",
    "ExpandStep",
    "Expansion",
    "GenerationDefaults",
    "Graphs",
    "IntegerStep",
    "Manifest",
    "Private",
    "Reference",
    "UnitStep",
    "Variant",
    "VariantGraphs",
    "WidenStep",
    "decode_manifest",
    "encode_manifest",
]

FORMAT: Final = "kwaainet-manifest/2"

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
"""fp32 over int4 without its scales: no file can honestly expand to more."""

PIECE: Final = 1 << 20
"""Bytes that one hash covers while a file is on its way. It is also the chunk of IPFS's default
profile, and under its limit of 2 MiB a block."""

Variant = Literal["gpu-fp32", "gpu-fp16", "wasm-expanded", "wasm-int8"]
REQUIRED_VARIANTS: Final = frozenset({"gpu-fp32", "wasm-expanded"})

_Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Size = Annotated[int, Meta(ge=1, le=MAX_BLOB_BYTES)]
_Offset = Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
_Dim = Annotated[int, Meta(ge=1, le=1 << 22)]
_Id = Annotated[int, Meta(ge=0, lt=1 << 22)]
_Label = Annotated[str, Meta(min_length=1, max_length=100)]


class Blob(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file, stored under the name of its hash."""

    sha256: _Sha256
    bytes: _Size
    dag: _Sha256 | None = None
    """sha256 of the dag-pb root that lists the file's pieces as raw leaves of `PIECE` bytes, the
    last one shorter: an IPFS UnixFS file. None for a file of one piece: its own hash is
    enough."""


class CopyStep(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="copy"):
    """`length` bytes go from `source` in the weights file to `target` in the expanded one."""

    source: _Offset
    target: _Offset
    length: _Size


class WidenStep(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="f16"):
    """float16 numbers at `source` become the `length` / 4 float32 ones at `target`."""

    source: _Offset
    target: _Offset
    length: _Size


class DequantiseStep(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="q4"):
    """int4 u8[n, k/32, 16] at `source` and scales f16[n * k/32] at `scales` become f32[k, n].

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


class DequantiseBytesStep(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="q8"
):
    """As `DequantiseStep`, of bytes u8[n, k]: `(byte - 128) * scales[r * k/32 + c // 32]`."""

    source: _Offset
    scales: _Offset
    k: _Dim
    n: _Dim
    target: _Offset
    length: _Size


class IntegerStep(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="i8"):
    """Weights as in `DequantiseStep` (`bits` 4) or `DequantiseBytesStep` (8), as integers i8[k, n].

    Weight w of row r becomes w / unit, rounded to the nearest (halves to even), where the row's
    unit is its largest |w| / 127; all in float32. A row of zeros stays 0.
    """

    source: _Offset
    scales: _Offset
    bits: Literal[4, 8]
    k: _Dim
    n: _Dim
    target: _Offset
    length: _Size


class UnitStep(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="i8-unit"):
    """The units f32[n] of an `IntegerStep` over the same weights."""

    source: _Offset
    scales: _Offset
    bits: Literal[4, 8]
    k: _Dim
    n: _Dim
    target: _Offset
    length: _Size


ExpandStep = CopyStep | WidenStep | DequantiseStep | DequantiseBytesStep | IntegerStep | UnitStep
_Steps = Annotated[list[ExpandStep], Meta(min_length=1, max_length=64)]


class Expansion(Struct, frozen=True, forbid_unknown_fields=True):
    """How a weights file becomes the one that a variant's graphs read."""

    layer: _Steps
    head: _Steps


class VariantGraphs(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The graphs of one variant; `spans` is keyed by the number of blocks, as a string."""

    head: Blob
    spans: dict[str, Blob]
    expand: Expansion | None = None
    """None: the graphs read the weight files as they are."""


class Graphs(Struct, frozen=True, forbid_unknown_fields=True):
    """`embed` serves every variant; `whole` is the unsplit model, for tests."""

    embed: Blob
    whole: Blob
    variants: dict[Variant, VariantGraphs]


class Chat(Struct, frozen=True, forbid_unknown_fields=True):
    """How messages become a prompt: a Jinja template as `tokenizer_config.json` has it."""

    template: Annotated[str, Meta(min_length=1, max_length=1 << 16)]
    special_tokens: Annotated[dict[_Label, _Label], Meta(max_length=32)]
    """The names that templates use (`bos_token`, `eos_token`, …) and their texts."""


class GenerationDefaults(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the model's makers sample with (`generation_config.json`); None: they do not say."""

    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 22)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None


class Private(Struct, frozen=True, forbid_unknown_fields=True):
    """The weight files are locked; see delivery/private.py."""

    keepers: Annotated[list[_Sha256], Meta(min_length=1, max_length=8)]
    """Ed25519 public keys, in hex, of the nodes that hand out the key."""
    key_check: _Sha256


class Reference(Struct, frozen=True, forbid_unknown_fields=True):
    """What the unsplit model says, greedily: a node that differs is broken."""

    prompt: Annotated[str, Meta(min_length=1, max_length=1000)]
    prompt_ids: Annotated[list[_Id], Meta(min_length=1, max_length=256)]
    ids: Annotated[list[_Id], Meta(min_length=1, max_length=REFERENCE_IDS)]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model as its files; sizes as in a Llama config, spans are `[first, last)` in blocks."""

    format: Literal["kwaainet-manifest/2"]
    name: _Label
    architecture: Literal["llama", "mistral", "qwen2", "qwen3"]
    license: _Label
    blocks: Annotated[int, Meta(ge=1, le=MAX_BLOCKS)]
    hidden_size: Annotated[int, Meta(ge=32, le=65536, multiple_of=BLOCK_SIZE)]
    kv_heads: Annotated[int, Meta(ge=1, le=256)]
    head_dim: Annotated[int, Meta(ge=8, le=1024, multiple_of=8)]
    vocab_size: Annotated[int, Meta(ge=2, le=1 << 22)]
    context_length: Annotated[int, Meta(ge=1, le=1 << 20)]
    bos_id: _Id | None
    """What the tokenizer puts before plain text; None: nothing."""
    eos_ids: Annotated[list[_Id], Meta(max_length=16)]
    bits: Literal[4, 8, 16, 32]
    """Of a weight in a block."""
    ends_bits: Literal[4, 8, 16, 32]
    """Of a weight in the embedding and the head. Where they are tied, `embed` and `head` are the
    same file."""
    block_size: Literal[32]
    """Weights that share one scale, at 4 and 8 bits."""
    tokenizer: Blob
    rope: Blob
    embed: Blob
    head: Blob
    layers: Annotated[list[Blob], Meta(min_length=1, max_length=MAX_BLOCKS)]
    graphs: Graphs
    reference: Reference
    chat: Chat | None = None
    generation: GenerationDefaults | None = None
    private: Private | None = None

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

    def span_bytes(self, first: int, last: int, variant: Variant) -> int:
        """Bytes of memory that a span's weights take in a session, the rotary table included."""
        self._require(first, last)
        expand = self.graphs.variants[variant].expand
        each = _end(expand.layer) if expand else _loaded(self.layers[0].bytes, self.bits, variant)
        return (last - first) * each + self.rope.bytes

    def head_bytes(self, variant: Variant) -> int:
        """Bytes of memory that the head's weights take in a session."""
        expand = self.graphs.variants[variant].expand
        return _end(expand.head) if expand else _loaded(self.head.bytes, self.ends_bits, variant)

    def kv_bytes(self, positions: int, blocks: int, variant: Variant) -> int:
        """Bytes of keys and values of one session over `blocks` blocks."""
        each = 2 if variant == "gpu-fp16" else 4
        return 2 * each * self.kv_heads * self.head_dim * positions * blocks

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
    for name in sorted(REQUIRED_VARIANTS - set(m.graphs.variants)):
        yield f"the graph variant {name} is missing"
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
    for name, variant in m.graphs.variants.items():
        if (variant.expand is None) == name.startswith("wasm-"):
            yield f"{name} is expanded, or is not and should be"
        elif variant.expand:
            yield from _expansion_faults("layer", variant.expand.layer, m.layers[0].bytes)
            yield from _expansion_faults("head", variant.expand.head, m.head.bytes)
    for blob in m.blobs().values():
        if (blob.dag is None) != (blob.bytes <= PIECE):
            yield f"file {blob.sha256[:12]} of {blob.bytes} bytes has its pieces listed wrongly"


def _expansion_faults(what: str, steps: list[ExpandStep], size: int) -> Iterable[str]:
    end = 0
    for number, step in enumerate(steps):
        where = f"expansion step {number} of the {what}"
        if step.target < end or step.target % 4:
            yield f"{where} overlaps the one before it, or is not aligned"
        end = step.target + step.length
        match step:
            case CopyStep():
                read = step.length
            case WidenStep():
                read = step.length // 2
                if step.source % 2 or step.length % 4:
                    yield f"{where} does not add up"
            case _:
                weights = step.k * step.n
                four = isinstance(step, DequantiseStep) or getattr(step, "bits", 8) == 4
                read = weights // 2 if four else weights
                if step.k % BLOCK_SIZE or step.length != _made(step):
                    yield f"{where} does not add up"
                if step.scales % 2 or step.scales + 2 * weights // BLOCK_SIZE > size:
                    yield f"{where} has its scales outside the file"
        if step.source + read > size:
            yield f"{where} reads past the file"
    # Without this a small file whose bytes are read again and again could fill a peer's memory.
    if end > EXPANSION * size + ALIGN * len(steps):
        yield f"the {what} would expand to {end} bytes"


def _made(step: DequantiseStep | DequantiseBytesStep | IntegerStep | UnitStep) -> int:
    """Bytes of what a step makes of a matrix."""
    match step:
        case IntegerStep():
            return step.k * step.n
        case UnitStep():
            return 4 * step.n
    return 4 * step.k * step.n


def _end(steps: list[ExpandStep]) -> int:
    return steps[-1].target + steps[-1].length


def _loaded(size: int, bits: int, variant: Variant) -> int:
    """Bytes that a weights file takes once its floats are in the variant's own precision."""
    half = variant == "gpu-fp16"
    match bits:
        case 4 | 8:  # 32 weights share a float16 scale
            return size if half else size + size * 2 // (4 * bits + 2) + 1
        case 16:
            return size if half else 2 * size
        case _:
            return size // 2 + 1 if half else size
