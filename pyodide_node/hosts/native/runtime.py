"""ONNX Runtime on one thread of its own, so that the event loop stays live.

One thread is also the queue: calls run one after another, in the order they were made.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import onnxruntime

from pyodide_node.errors import EngineError, KwaaiNetError

__all__ = ["Runtime", "open_session"]

T = TypeVar("T")

_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of malloc.h."""
_LARGE = 4 << 20
"""Bytes from which on a block is mapped by itself: weights are, what a step needs is mostly not."""


def open_session(graph: bytes, files: Mapping[str, bytes], threads: int) -> Any:
    """An InferenceSession on the CPU; `files` are its external data, by name.

    Raises whatever ONNX Runtime raises: it has no error of its own.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Each session owns a pool; those that spin while idle take the cores from the one that works.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan is kept for every new shape, and strangers choose how many positions a step has.
    options.enable_mem_pattern = False
    names, values = list(files), list(files.values())
    options.add_external_initializers_from_files_in_memory(names, values, [len(v) for v in values])
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _mallopt() -> None:
    """Have glibc give large blocks back as soon as they are freed. By itself it begins to keep them
    once some were, and a session would hold half of its weights a second time."""
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)
        if set_option is not None:
            set_option(_MMAP_THRESHOLD, _LARGE)


class Runtime:
    """`threads` work within one operation."""

    def __init__(self, threads: int) -> None:
        _mallopt()
        self.threads = threads
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kwaainet-engine")

    async def call(self, work: Callable[[], T]) -> T:
        """`work` on the engine's thread. Raises EngineError for what is not ours already."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (KwaaiNetError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise EngineError(f"ONNX Runtime: {error}") from error

    async def session(self, graph: bytes, files: Mapping[str, bytes]) -> Any:
        session = await self.call(lambda: open_session(graph, files, self.threads))
        await self.call(lambda: None)  # the thread holds on to a call's files until its next one
        return session

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
