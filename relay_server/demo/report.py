"""What a demo run found, as the JSON that scripts read."""

from __future__ import annotations

import asyncio
from typing import Any

from pyodide_node.hosts.native import UnsplitModel
from relay_server.demo.network import DemoNetwork
from relay_server.demo.visitor import Visitor

__all__ = ["reference_ids", "report"]

_HOP = ("peer", "host", "first_block", "last_block", "engine", "path", "step_ms")


async def report(
    network: DemoNetwork,
    asker: Visitor,
    prompt: str,
    answer: dict[str, Any],
    downloaded: int,
) -> dict[str, Any]:
    """The answer beside what the unsplit model says natively to the same prompt ids."""
    reference = await reference_ids(network, answer["prompt_ids"], len(answer["ids"]))
    route = [{key: hop[key] for key in _HOP} for hop in answer["route"]]
    return {
        "model": network.manifest.name,
        "prompt": prompt,
        "prompt_ids": answer["prompt_ids"],
        "ids": answer["ids"],
        "text": answer["text"],
        "reference_ids": reference,
        "match": answer["ids"] == reference and bool(reference),
        "route": route,
        "hops": len(route),
        "ttft_ms": answer["ttft_ms"],
        "decode_tok_s": answer["decode_tok_s"],
        "download_bytes": downloaded,
        "cold_start_ms": round(asker.cold_start_ms),
    }


async def reference_ids(network: DemoNetwork, prompt_ids: list[int], count: int) -> list[int]:
    """Greedy ids of the unsplit model in native ONNX Runtime, up to an end of sequence."""
    blobs = network.models / network.manifest.name / "blobs"

    async def blob(sha256: str, size: int) -> bytes:
        return await asyncio.to_thread((blobs / sha256).read_bytes)

    model = await UnsplitModel.load(network.manifest, blob)
    room = min(count + 1, network.manifest.context_length - len(prompt_ids))
    ids = await asyncio.to_thread(model.reference_ids, prompt_ids, room)
    # One more than was answered: an answer that ended early must have ended for a reason.
    for index, token in enumerate(ids):
        if token in network.manifest.eos_ids:
            return ids[:index]
    return ids[:count]
