"""The model in one piece: the independent reference for what the pieces answer together.

It shares no code with spans, caches, head or sampling; it runs the manifest's `whole` graph in
one session and takes the largest logit.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import BlobReader
from pyodide_node.model.manifest import Manifest

from .runtime import open_session

__all__ = ["UnsplitModel"]


class UnsplitModel:
    """Make it by `load`. Native only: a tab could not hold a large model whole."""

    def __init__(self, manifest: Manifest, session: Any) -> None:
        self._manifest = manifest
        self._session = session

    @classmethod
    async def load(cls, manifest: Manifest, blob: BlobReader, *, threads: int = 1) -> UnsplitModel:
        """Raises EngineError, or what `blob` raises."""
        files = {
            **manifest.span_blobs(0, manifest.blocks),
            "embed.bin": manifest.embed,
            "head.bin": manifest.head,
        }
        names = {"graph": manifest.graphs.whole} | files
        read = {name: await blob(file.sha256, file.bytes) for name, file in names.items()}
        try:
            session = await asyncio.to_thread(open_session, read.pop("graph"), read, threads)
        except Exception as error:  # ONNX Runtime has no error of its own
            raise EngineError(f"ONNX Runtime: {error}") from error
        return cls(manifest, session)

    def reference_ids(self, prompt_ids: list[int], n: int) -> list[int]:
        """The `n` ids that follow `prompt_ids` greedily, ends of sequence included.

        Blocks for as long as it computes. Raises EngineError when they do not fit in the context.
        """
        m = self._manifest
        if not prompt_ids or len(prompt_ids) + n > m.context_length:
            raise EngineError(f"{len(prompt_ids)} + {n} positions do not fit in the context")
        past = {
            f"past_{k}_{part}": np.zeros((1, m.kv_heads, 0, m.head_dim), np.float32)
            for k in range(m.blocks)
            for part in ("key", "value")
        }
        names = ["logits", *(name.replace("past", "present") for name in past)]
        ids: list[int] = []
        fresh, total = prompt_ids, 0
        while len(ids) < n:
            total += len(fresh)
            feeds = {
                "input_ids": np.array([fresh], np.int64),
                "seqlens_k": np.array([total - 1], np.int32),
                "total_sequence_length": np.array(total, np.int32),
            }
            logits, *present = self._session.run(names, feeds | past)
            past = dict(zip(past, present, strict=True))
            fresh = [int(logits[0, -1].argmax())]
            ids += fresh
        return ids
