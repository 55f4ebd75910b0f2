"""What the unsplit model says greedily, by which a node tests itself.

A small model runs whole, in one native session. Of a big one only a layer at a time is in memory,
and all prompts pass through it in one go: then the reference is one token long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from build.shards.blobs import Blobs
from build.shards.source import CheckpointError, Source
from pyodide_node.model.manifest import REFERENCE_IDS, Blob, Manifest, Reference

__all__ = ["PROMPTS", "WholeModel", "find_reference", "first_ids", "session"]

PROMPTS = (
    "The function returns",
    "If the file does not exist,",
    "A transaction is",
    "This section describes how",
    "The database server",
    "When a connection is closed,",
    "The value of this option",
    "Each element of the list",
)

SAFE_MARGIN = 0.05
"""Logits: engines differ by about 1e-5, a thousandth of the least margin wanted here."""

WHOLE_BYTES = 256 << 20
"""Weights of a model that runs whole: 32 ids of up to eight prompts are a minute's work then. Not
what happens to be free: the same checkpoint must give the same manifest on every machine."""

Tell = Callable[[str, int], None]
"""Told what was read, and its bytes."""


def find_reference(source: Source, manifest: Manifest, blobs: Blobs, tell: Tell) -> Reference:
    """The prompt whose greedy answer is least in doubt: no engine's rounding may flip it.

    `manifest` is complete but for its reference. Raises `CheckpointError` where the context is too
    short for one.
    """
    m = manifest
    weights = m.span_bytes(0, m.blocks, "gpu-fp32") + m.head_bytes("gpu-fp32") + m.embed.bytes
    whole = weights <= WHOLE_BYTES
    prompts = _prompts(source, REFERENCE_IDS if whole else 1)
    if not prompts:
        raise CheckpointError("the context holds no reference: serve more positions")
    answer = _whole_answers if whole else _layered
    found = answer(m, blobs, prompts, tell)
    best: tuple[float, Reference] | None = None
    for (prompt, prompt_ids), (ids, margin) in zip(prompts, found, strict=False):
        if best is None or margin > best[0]:
            best = margin, Reference(prompt=prompt, prompt_ids=prompt_ids, ids=ids)
        if margin >= SAFE_MARGIN:
            break
    assert best is not None
    return best[1]


def first_ids(
    manifest: Manifest, blobs: Blobs, prompts: list[list[int]], tell: Tell
) -> list[tuple[int, float]]:
    """For each prompt the id that follows greedily, and its logit's lead over the next best; one
    layer in memory at a time."""
    m = manifest

    def run(graph: Blob, files: dict[str, Blob], inputs: list[Any], outputs: list[str]) -> Any:
        data = {name: blobs.read(blob) for name, blob in files.items()}
        opened = session(blobs.read(graph), data, os.cpu_count() or 1)
        tell("reference", sum(blob.bytes for blob in files.values()))
        return [opened.run(outputs, feeds) for feeds in inputs]

    ids = [{"input_ids": np.array([prompt], np.int64)} for prompt in prompts]
    embed = m.graph("gpu-fp32", "embed")
    hidden = [out[0] for out in run(embed, {"embed.bin": m.embed}, ids, ["hidden"])]
    empty = np.zeros((1, m.kv_heads, 0, m.head_dim), np.float32)
    for layer in range(m.blocks):
        feeds = [
            {
                "hidden_in": each,
                "seqlens_k": np.array([each.shape[1] - 1], np.int32),
                "total_sequence_length": np.array(each.shape[1], np.int32),
                "past_0_key": empty,
                "past_0_value": empty,
            }
            for each in hidden
        ]
        span = m.span_blobs(layer, layer + 1)
        hidden = [out[0] for out in run(m.graph("gpu-fp32", 1), span, feeds, ["hidden_out"])]
    one, two = np.ones(1, np.float32), np.array([2], np.int64)
    feeds = [{"hidden_in": each, "temperature": one, "k": two} for each in hidden]
    head = m.graph("gpu-fp32", "head")
    tops = run(head, {"head.bin": m.head}, feeds, ["top_indices", "top_values"])
    return [(int(top[0, 0]), float(values[0, 0] - values[0, 1])) for top, values in tops]


def _prompts(source: Source, count: int) -> list[tuple[str, list[int]]]:
    tokenizer = Tokenizer.from_str(source.tokenizer().decode())
    bos = [] if source.bos_id is None else [source.bos_id]
    every = [(p, bos + tokenizer.encode(p, add_special_tokens=False).ids) for p in PROMPTS]
    return [(p, ids) for p, ids in every if ids and len(ids) + count <= source.shape.context_length]


def _whole_answers(
    m: Manifest, blobs: Blobs, prompts: list[tuple[str, list[int]]], tell: Tell
) -> Iterator[tuple[list[int], float]]:
    files = m.span_blobs(0, m.blocks) | {"embed.bin": m.embed, "head.bin": m.head}
    graph = blobs.read(m.graphs.whole)
    data = {name: blobs.read(blob) for name, blob in files.items()}
    model = WholeModel(graph, data, os.cpu_count() or 1)
    for _, ids in prompts:
        yield model.greedy(ids, REFERENCE_IDS)
        tell("reference", sum(map(len, data.values())) // len(prompts))


def _layered(
    m: Manifest, blobs: Blobs, prompts: list[tuple[str, list[int]]], tell: Tell
) -> Iterator[tuple[list[int], float]]:
    for best, margin in first_ids(m, blobs, [ids for _, ids in prompts], tell):
        yield [best], margin


def session(graph: bytes, files: Mapping[str, bytes], threads: int = 1) -> Any:
    """An onnxruntime session; `files` are the external data, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from those that work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    names, values = list(files), list(files.values())
    options.add_external_initializers_from_files_in_memory(names, values, [len(v) for v in values])
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class WholeModel:
    """Runs the `whole` graph, keys and values kept between calls."""

    def __init__(self, graph: bytes, files: Mapping[str, bytes], threads: int = 1) -> None:
        self._session = session(graph, files, threads)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._empty: dict[str, NDArray[np.float32]] = {
            put.name: np.zeros((1, put.shape[1], 0, put.shape[3]), np.float32)
            for put in self._session.get_inputs()
            if put.name.startswith("past_")
        }
        self.restart()

    def restart(self) -> None:
        """Forgets every position."""
        self._past = dict(self._empty)
        self.positions = 0

    def step(self, ids: list[int]) -> NDArray[np.float32]:
        """Appends ids; f32[len(ids), vocab] logits."""
        self.positions += len(ids)
        feeds = {
            "input_ids": np.array([ids], np.int64),
            "seqlens_k": np.array([self.positions - 1], np.int32),
            "total_sequence_length": np.array(self.positions, np.int32),
            **self._past,
        }
        out = dict(zip(self._outputs, self._session.run(None, feeds), strict=True))
        self._past = {name: out[name.replace("past", "present")] for name in self._past}
        logits: NDArray[np.float32] = out["logits"][0]
        return logits

    def greedy(self, prompt: list[int], count: int) -> tuple[list[int], float]:
        """`count` greedy ids, and the least lead of a chosen logit over the next best."""
        self.restart()
        logits = self.step(prompt)[-1]
        ids: list[int] = []
        margin = float("inf")
        while True:
            best = int(logits.argmax())
            margin = min(margin, float(logits[best] - np.delete(logits, best).max()))
            ids.append(best)
            if len(ids) == count:
                return ids, margin
            logits = self.step([best])[-1]
