"""A whole model for the simulated engine: a manifest that passes every check, and its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
import numpy as np

from pyodide_node.hosts.steps import Floats
from pyodide_node.model.manifest import (
    FORMAT,
    REFERENCE_IDS,
    Blob,
    Chat,
    CopyStep,
    Expansion,
    GenerationDefaults,
    Graphs,
    Manifest,
    Reference,
    Variant,
    VariantGraphs,
    decode_manifest,
    encode_manifest,
)
from pyodide_node.model.pieces import describe

from .transformer import HEAD_DIM, Block, block_shape

__all__ = ["SimulatedModel", "simulated_model"]

BOS, BOS_TEXT = 256, "<s>"
EOS, EOS_TEXT = 257, "</s>"
VOCABULARY = 258
"""Every byte is a token, and two special ones."""

PROMPT = "Once upon a time"


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    manifest: Manifest
    blobs: dict[str, bytes]
    """Every file, by hash."""

    def greedy(self, prompt_ids: list[int], count: int) -> list[int]:
        """What a correct node answers: `count` ids, by the shortest way through the weights."""
        m = self.manifest
        blocks = [Block(self.blobs[layer.sha256], m.hidden_size) for layer in m.layers]
        embed, head = (
            np.frombuffer(self.blobs[blob.sha256], "<f4").reshape(m.vocab_size, m.hidden_size)
            for blob in (m.embed, m.head)
        )
        kv = np.zeros((m.blocks, 2, len(prompt_ids) + count, HEAD_DIM))
        ids = list(prompt_ids)
        for position in range(len(prompt_ids) + count - 1):
            hidden: Floats = embed[ids[position]]
            for block, cache in zip(blocks, kv, strict=True):
                hidden = block.step(hidden, cache, position)
            if position >= len(prompt_ids) - 1:
                ids.append(int((head.astype(np.float64) @ hidden).argmax()))
        return ids[len(prompt_ids) :]

    def publish(self, web: dict[str, bytes], base: str) -> None:
        """Put `base`/manifest.json and `base`/blobs/<sha256> on a simulated web."""
        web[f"{base}/manifest.json"] = encode_manifest(self.manifest)
        web.update({f"{base}/blobs/{sha256}": data for sha256, data in self.blobs.items()})


def simulated_model(
    *,
    blocks: int = 4,
    hidden_size: int = 32,
    context: int = 512,
    seed: int = 0,
    chat: Chat | None = None,
    generation: GenerationDefaults | None = None,
) -> SimulatedModel:
    """Deterministic: the same arguments give the same model id."""
    blobs: dict[str, bytes] = {}

    def add(data: bytes) -> Blob:
        blob, root = describe(data)
        blobs[blob.sha256] = data
        if blob.dag is not None and root is not None:
            blobs[blob.dag] = root
        return blob

    def weights(name: str, rows: int, columns: int, scale: float) -> bytes:
        noise = hashlib.shake_256(f"{seed} {name}".encode()).digest(2 * rows * columns)
        uniform = np.frombuffer(noise, "<u2") / 32768.0 - 1.0
        return (scale * uniform).astype("<f4").tobytes()

    def text(name: str) -> Blob:
        return add(f"simulated {name}".encode())

    rows, columns = block_shape(hidden_size)
    layers = [add(weights(f"layer {i}", rows, columns, 0.5)) for i in range(blocks)]
    head = add(weights("head", VOCABULARY, hidden_size, 1.0))
    counts = [str(count) for count in range(1, blocks + 1)]
    kinds: tuple[Variant, ...] = ("gpu-fp32", "wasm-expanded")
    expand = Expansion(
        layer=[CopyStep(source=0, target=0, length=layers[0].bytes)],
        head=[CopyStep(source=0, target=0, length=head.bytes)],
    )
    variants = {
        variant: VariantGraphs(
            head=text(f"{variant} head graph"),
            spans={count: text(f"{variant} graph of {count}") for count in counts},
            expand=expand if variant == "wasm-expanded" else None,
        )
        for variant in kinds
    }
    prompt_ids = [BOS, *PROMPT.encode()]
    manifest = Manifest(
        format=FORMAT,
        name=f"simulated-{blocks}x{hidden_size}-{seed}",
        architecture="llama",
        license="MIT",
        blocks=blocks,
        hidden_size=hidden_size,
        kv_heads=1,
        head_dim=HEAD_DIM,
        vocab_size=VOCABULARY,
        context_length=context,
        bos_id=BOS,
        eos_ids=[EOS],
        bits=32,
        ends_bits=32,
        block_size=32,
        tokenizer=text("tokenizer"),
        rope=text("rotary table"),
        embed=add(weights("embed", VOCABULARY, hidden_size, 1.0)),
        head=head,
        layers=layers,
        graphs=Graphs(embed=text("embed graph"), whole=text("whole graph"), variants=variants),
        chat=chat,
        generation=generation,
        reference=Reference(prompt=PROMPT, prompt_ids=prompt_ids, ids=[0] * REFERENCE_IDS),
    )
    ids = SimulatedModel(manifest, blobs).greedy(prompt_ids, REFERENCE_IDS)
    reference = msgspec.structs.replace(manifest.reference, ids=ids)
    manifest = msgspec.structs.replace(manifest, reference=reference)
    return SimulatedModel(decode_manifest(encode_manifest(manifest)), blobs)
