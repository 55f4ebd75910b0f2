"""Sessions over built shards: what peers and an asker do between them, without the network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from build.shards.reference import WholeModel, session
from pyodide_node.hosts.expansion import expand
from pyodide_node.model.manifest import Blob, Manifest, Variant


class Shards:
    """A folder of blobs, read as one variant's peer reads it."""

    def __init__(self, folder: Path, manifest: Manifest, variant: Variant) -> None:
        self.manifest = manifest
        self._folder, self.variant = folder, variant
        self._files: dict[str, bytes] = {}

    def read(self, blob: Blob) -> bytes:
        return (self._folder / "blobs" / blob.sha256).read_bytes()

    def session(self, kind: str | int, first: int = 0) -> Any:
        """The session of "embed", "head", or of a span of `kind` blocks from `first`."""
        m = self.manifest
        steps = m.graphs.variants[self.variant].expand
        if kind == "embed":
            files = {"embed.bin": self.read(m.embed)}
        elif kind == "head":
            files = {"head.bin": self._weights(m.head, steps and steps.head)}
        else:
            assert isinstance(kind, int)
            blobs = m.span_blobs(first, first + kind)
            files = {
                name: self._weights(
                    blob, steps.layer if steps and name.startswith("layer") else None
                )
                for name, blob in blobs.items()
            }
        return session(self.read(m.graph(self.variant, kind)), files)  # type: ignore[arg-type]

    def _weights(self, blob: Blob, steps: Any) -> bytes:
        data = self.read(blob)
        return expand(data, steps) if steps else data


def whole_model(folder: Path, manifest: Manifest) -> WholeModel:
    """The unsplit model."""
    read = Shards(folder, manifest, "gpu-fp32").read
    files = manifest.span_blobs(0, manifest.blocks)
    files |= {"embed.bin": manifest.embed, "head.bin": manifest.head}
    return WholeModel(
        read(manifest.graphs.whole), {name: read(blob) for name, blob in files.items()}
    )


class Chain:
    """A route: embed, spans one after another, head."""

    def __init__(self, shards: Shards, cuts: Sequence[int]) -> None:
        """`cuts` are the borders, the ends included: (0, 3, 8) is two stages."""
        self.manifest = shards.manifest
        self._kv = np.float16 if shards.variant == "gpu-fp16" else np.float32
        self._embed, self._head = shards.session("embed"), shards.session("head")
        pairs = list(itertools.pairwise(cuts))
        self._stages = [(b - a, shards.session(b - a, a)) for a, b in pairs]
        self.restart()

    def restart(self) -> None:
        m = self.manifest
        empty = np.zeros((1, m.kv_heads, 0, m.head_dim), self._kv)
        self._past = [
            {f"past_{k}_{x}": empty for k in range(blocks) for x in ("key", "value")}
            for blocks, _ in self._stages
        ]
        self.positions = 0

    def hidden(self, ids: list[int]) -> Any:
        """Appends ids; the hidden states after the last block, f32[1, len(ids), hidden]."""
        self.positions += len(ids)
        hidden = self._embed.run(None, {"input_ids": np.array([ids], np.int64)})[0]
        for stage, (_, run) in enumerate(self._stages):
            feeds = {
                "hidden_in": hidden,
                "seqlens_k": np.array([self.positions - 1], np.int32),
                "total_sequence_length": np.array(self.positions, np.int32),
                **self._past[stage],
            }
            out = dict(zip([o.name for o in run.get_outputs()], run.run(None, feeds), strict=True))
            hidden = out["hidden_out"]
            self._past[stage] = {n: out[n.replace("past", "present")] for n in self._past[stage]}
        return hidden

    def choose(self, hidden: Any, k: int = 1, temperature: float = 1.0) -> tuple[Any, Any, Any]:
        """(top_values[k], top_indices[k], logsumexp) of the head."""
        feeds = {
            "hidden_in": hidden,
            "temperature": np.array([temperature], np.float32),
            "k": np.array([k], np.int64),
        }
        names = ["top_values", "top_indices", "logsumexp"]
        values, indices, total = self._head.run(names, feeds)
        return values[0], indices[0], total[0]

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        self.restart()
        ids: list[int] = []
        new = prompt
        for _ in range(count):
            _, best, _ = self.choose(self.hidden(new))
            ids.append(int(best[0]))
            new = [ids[-1]]
        return ids
