"""The unsplit int4 model in one native session, and the tokens it chooses greedily."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

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


def session(graph: bytes, files: Mapping[str, bytes]) -> Any:
    """An onnxruntime session of one thread; `files` are the external data, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    names, values = list(files), list(files.values())
    options.add_external_initializers_from_files_in_memory(names, values, [len(v) for v in values])
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class WholeModel:
    """Runs the `whole` graph, keys and values kept between calls."""

    def __init__(self, graph: bytes, files: Mapping[str, bytes]) -> None:
        self._session = session(graph, files)
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
