"""A whole native host."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pyodide_node.hosts.base import Host

from .clock import NativeClock
from .engine import NativeEngine
from .keys import load_keys
from .store import NativeStore
from .transport import NativeTransport

__all__ = ["NativeHost", "native_host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeHost(Host):
    engine: NativeEngine
    store: NativeStore

    def close(self) -> None:
        """End the threads of the engine and the store; close spans and connections before."""
        self.engine.close()
        self.store.close()


async def native_host(
    state_dir: Path | str, *, cache_dir: Path | str | None = None, threads: int = 1
) -> NativeHost:
    """This machine as a host.

    `state_dir` holds the identity and small values; two nodes never share one. `cache_dir`
    (`state_dir`/cache unless given) holds weights, may be shared and may be deleted. `threads`
    work within one operation of the engine. Raises StoreError when the identity cannot be read
    or made.
    """
    state = Path(state_dir)
    cache = Path(cache_dir) if cache_dir is not None else state / "cache"
    keys = await asyncio.to_thread(load_keys, state / "identity.pem")
    return NativeHost(
        kind="native",
        clock=NativeClock(),
        keys=keys,
        transport=NativeTransport(),
        engine=NativeEngine(threads),
        store=await asyncio.to_thread(NativeStore, cache, state / "values"),
    )
