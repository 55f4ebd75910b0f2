"""The native node against bare ONNX Runtime, on the same weights in the same process."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from build.bench.row import Row
from pyodide_node.config import NodeConfig, ResourceLimits
from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import UnsplitModel, native_host
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.model.manifest import Manifest, decode_manifest

__all__ = ["PROMPT", "native_rows"]

PROMPT = "If the file does not exist,"
TOKENS = 64
ROUNDS = 5


async def native_rows(models: Path, name: str) -> list[Row]:
    """Rounds of both in turn, so that a machine whose speed drifts is fair to both."""
    manifest = decode_manifest((models / name / "manifest.json").read_bytes())
    bare = await UnsplitModel.load(manifest, _reader(models / name / "blobs"))
    node_rates: list[float] = []
    bare_rates: list[float] = []
    async with _node(manifest, models) as core:
        for _ in range(ROUNDS + 1):
            answer = await _ask(core)
            node_rates.append(answer.decode_tok_s)
            bare_rates.append(await _bare_rate(bare, answer.prompt_ids))
    ratio = statistics.median(
        node / alone for node, alone in zip(node_rates[1:], bare_rates[1:], strict=True)
    )
    return [
        Row(
            what="native node / bare onnxruntime, decode",
            value=ratio,
            unit="x",
            note=f"{statistics.median(node_rates[1:]):.0f} against"
            f" {statistics.median(bare_rates[1:]):.0f} tok/s",
        )
    ]


def _reader(blobs: Path):  # type: ignore[no-untyped-def]
    async def read(sha256: str, size: int) -> bytes:
        return await asyncio.to_thread((blobs / sha256).read_bytes)

    return read


@asynccontextmanager
async def _node(manifest: Manifest, models: Path) -> AsyncIterator[KwaaiNetCore]:
    from relay_server.relay import Relay
    from relay_server.settings import RelaySettings

    settings = RelaySettings(host="127.0.0.1", port=0, models=models)
    with tempfile.TemporaryDirectory() as state:
        async with Relay(settings) as relay:
            host = await native_host(state)
            config = NodeConfig(
                sources=(f"{relay.url}/models/",),
                model=manifest.name,
                limits=ResourceLimits(cpu=100, memory=4000, storage=1000),
            )
            core = KwaaiNetCore(host, config)
            try:
                await core.initialize()
                yield core
            finally:
                await core.close()
                host.close()


async def _ask(core: KwaaiNetCore) -> Answer:
    answers: list[Answer] = []
    request = InferenceRequest(prompt=PROMPT, max_tokens=TOKENS)
    async for _ in core.run_inference(request, answers.append):
        pass
    return answers[-1]


async def _bare_rate(model: UnsplitModel, prompt_ids: list[int]) -> float:
    """Decode only: a long answer less a short one."""

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        model.reference_ids(prompt_ids, count)
        return time.perf_counter() - begun

    short = await asyncio.to_thread(seconds, 1)
    long = await asyncio.to_thread(seconds, TOKENS)
    return (TOKENS - 1) / (long - short)
