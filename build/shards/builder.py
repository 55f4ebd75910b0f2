"""Checkpoint in, folder of blobs and a manifest out; the same checkpoint gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from build.shards.graphs import GraphMaker
from build.shards.layout import Part, Slot, expansion, pack
from build.shards.quantise import quantise
from build.shards.reference import PROMPTS, SAFE_MARGIN, WholeModel
from build.shards.rope import rotary_tables
from build.shards.source import CheckpointError, Shape, Source
from pyodide_node.errors import ManifestError
from pyodide_node.inference.manifest import (
    FORMAT,
    REFERENCE_IDS,
    Blob,
    Expansion,
    Graphs,
    Manifest,
    Reference,
    Variant,
    VariantGraphs,
    decode_manifest,
    encode_manifest,
)
from pyodide_node.inference.pieces import describe

MANIFEST = "manifest.json"
RECEIPT = "built-from.json"
"""What the folder was built from, so that a second run has nothing to do."""

Progress = Callable[[str, int, int], None]
"""Called with what was just made, the steps done and the steps in all."""


@dataclass(frozen=True, slots=True)
class Built:
    """The outcome: the manifest, and whether it was there already."""

    manifest: Manifest
    fresh: bool


def build(
    checkpoint: Source,
    out: Path,
    name: str,
    license: str | None = None,
    progress: Progress = lambda _what, _done, _of: None,
) -> Built:
    """Writes `out/manifest.json` and `out/blobs/<sha256>`; does nothing when they are current.

    `license` defaults to the one in the checkpoint's model card. Raises `CheckpointError`.
    """
    license = license or checkpoint.license
    if not license:
        raise CheckpointError(
            "no licence: name it (--license), or in the model card's front matter"
        )
    receipt = {"inputs": _inputs(checkpoint, name, license)}
    old = _current(out, receipt)
    if old:
        return Built(old, fresh=False)
    work = _Build(checkpoint, out / "blobs", progress)
    manifest = work.run(name, license)
    data = encode_manifest(manifest)
    decode_manifest(data)
    _write(out / MANIFEST, data)
    _write(out / RECEIPT, json.dumps(receipt).encode())
    blobs = manifest.blobs()
    named = set(blobs) | {blob.dag for blob in blobs.values() if blob.dag}
    for stray in {path.name for path in (out / "blobs").iterdir()} - named:
        (out / "blobs" / stray).unlink()
    return Built(manifest, fresh=True)


class _Build:
    def __init__(self, checkpoint: Source, blobs: Path, progress: Progress) -> None:
        self._checkpoint = checkpoint
        self._blobs = blobs
        self._progress = progress
        self._done = 0
        self._steps = 3 * checkpoint.shape.blocks + 3
        blobs.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, license: str) -> Manifest:
        source, shape = self._checkpoint, self._checkpoint.shape
        rope_slots, rope = pack(_rope(shape))
        ends = (shape.vocab_size, shape.hidden_size)
        table = source.tensor("model.embed_tokens.weight", *ends)
        embed_slots, embed = pack({"table": table.astype(np.float16)})
        norm = source.tensor("model.norm.weight", shape.hidden_size)
        output = table if shape.tied else source.tensor("lm_head.weight", *ends)
        head_slots, head = pack({"norm": norm, "lm_head": quantise(output)})
        self._tell("embedding and head")
        layer_slots: list[Slot] = []
        layers: list[Blob] = []
        for index in range(shape.blocks):
            layer_slots, file = pack(_layer(source, index))
            layers.append(self._put(file))
            self._tell(f"layer {index}")
        wide_layer, layer_steps = expansion(layer_slots)
        wide_head, head_steps = expansion(head_slots)
        common = {"rope": rope_slots, "embed": embed_slots}
        packed = GraphMaker(shape, expanded=False, layer=layer_slots, head=head_slots, **common)
        wide = GraphMaker(shape, expanded=True, layer=wide_layer, head=wide_head, **common)
        variants: dict[Variant, VariantGraphs] = {
            "gpu-fp32": self._graphs(packed),
            "wasm-expanded": self._graphs(wide, Expansion(layer=layer_steps, head=head_steps)),
        }
        whole = packed.whole()
        files = {"embed.bin": embed, "rope.bin": rope, "head.bin": head}
        for index, blob in enumerate(layers):
            files[f"layer{index}.bin"] = (self._blobs / blob.sha256).read_bytes()
        reference = self._reference(WholeModel(whole, files))
        return Manifest(
            format=FORMAT,
            name=name,
            architecture=shape.architecture,
            license=license,
            blocks=shape.blocks,
            hidden_size=shape.hidden_size,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            vocab_size=shape.vocab_size,
            context_length=shape.context_length,
            bos_id=source.bos_id,
            eos_ids=source.eos_ids,
            bits=4,
            ends_bits=4,
            block_size=32,
            tokenizer=self._put(source.tokenizer()),
            rope=self._put(rope),
            embed=self._put(embed),
            head=self._put(head),
            layers=layers,
            graphs=Graphs(
                embed=self._put(packed.embed()), whole=self._put(whole), variants=variants
            ),
            reference=reference,
        )

    def _graphs(self, maker: GraphMaker, expand: Expansion | None = None) -> VariantGraphs:
        spans: dict[str, Blob] = {}
        for count in range(1, self._checkpoint.shape.blocks + 1):
            spans[str(count)] = self._put(maker.span(count))
            self._tell(f"graph of {count} blocks")
        return VariantGraphs(head=self._put(maker.head()), spans=spans, expand=expand)

    def _reference(self, model: WholeModel) -> Reference:
        """The prompt whose greedy answer is least in doubt: no engine's rounding may flip it."""
        tokenizer = Tokenizer.from_str(self._checkpoint.tokenizer().decode())
        bos = [] if self._checkpoint.bos_id is None else [self._checkpoint.bos_id]
        best: tuple[float, Reference] | None = None
        for prompt in PROMPTS:
            prompt_ids = bos + tokenizer.encode(prompt, add_special_tokens=False).ids
            if len(prompt_ids) + REFERENCE_IDS > self._checkpoint.shape.context_length:
                continue
            ids, margin = model.greedy(prompt_ids, REFERENCE_IDS)
            if best is None or margin > best[0]:
                best = margin, Reference(prompt=prompt, prompt_ids=prompt_ids, ids=ids)
            if margin >= SAFE_MARGIN:
                break
        if best is None:
            raise CheckpointError("the context holds no reference: serve more positions")
        self._tell("reference")
        return best[1]

    def _put(self, data: bytes) -> Blob:
        blob, root = describe(data)
        self._keep(blob.sha256, data)
        if root is not None and blob.dag is not None:
            self._keep(blob.dag, root)
        return blob

    def _keep(self, digest: str, data: bytes) -> None:
        path = self._blobs / digest
        if not (path.is_file() and path.stat().st_size == len(data)):
            _write(path, data)

    def _tell(self, what: str) -> None:
        self._done += 1
        self._progress(what, self._done, self._steps)


def _layer(source: Source, index: int) -> dict[str, Part]:
    """The parts of one layer's file, in the order in which its graph uses them."""
    s = source.shape
    at = f"model.layers.{index}"
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    qkv = np.concatenate(
        [
            source.tensor(f"{at}.self_attn.q_proj.weight", queries, s.hidden_size),
            source.tensor(f"{at}.self_attn.k_proj.weight", keys, s.hidden_size),
            source.tensor(f"{at}.self_attn.v_proj.weight", keys, s.hidden_size),
        ]
    )
    wide = (s.intermediate_size, s.hidden_size)
    return {
        "attention_norm": source.tensor(f"{at}.input_layernorm.weight", s.hidden_size),
        "qkv": quantise(qkv),
        "o": quantise(source.tensor(f"{at}.self_attn.o_proj.weight", s.hidden_size, queries)),
        "mlp_norm": source.tensor(f"{at}.post_attention_layernorm.weight", s.hidden_size),
        "gate": quantise(source.tensor(f"{at}.mlp.gate_proj.weight", *wide)),
        "up": quantise(source.tensor(f"{at}.mlp.up_proj.weight", *wide)),
        "down": quantise(source.tensor(f"{at}.mlp.down_proj.weight", *reversed(wide))),
    }


def _rope(s: Shape) -> dict[str, Part]:
    """Rotary tables, no longer than the positions served."""
    cos, sin = rotary_tables(s.context_length, s.head_dim, s.rope_theta, s.rope_scaling)
    return {"cos": cos, "sin": sin}


def _inputs(checkpoint: Source, name: str, license: str) -> str:
    """A hash over everything that decides the output, this package's own code included."""
    total = hashlib.sha256(
        f"{FORMAT} {name} {license} {checkpoint.shape} {checkpoint.digest()}".encode()
    )
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def _current(out: Path, receipt: dict[str, str]) -> Manifest | None:
    """The manifest in `out` if it was built from the same inputs and no file is missing."""
    try:
        if json.loads((out / RECEIPT).read_bytes()) != receipt:
            return None
        manifest = decode_manifest((out / MANIFEST).read_bytes())
        for digest, blob in manifest.blobs().items():
            if (out / "blobs" / digest).stat().st_size != blob.bytes:
                return None
    except (OSError, ValueError, ManifestError):
        return None
    return manifest


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: a reader never sees half a file."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)
