"""The demo's network: a relay, a site, visitors and native nodes, up and down in good order."""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from pyodide_node.errors import LocalError
from pyodide_node.model.manifest import Manifest, decode_manifest
from relay_server.demo.browsers import SOFTWARE_WEBGPU, profile
from relay_server.demo.site import ExampleSite, default_examples
from relay_server.demo.visitor import Visitor
from relay_server.relay import Relay
from relay_server.settings import RelaySettings, default_cdn, default_models

if TYPE_CHECKING:
    from playwright.async_api import Playwright

__all__ = ["DemoNetwork", "DemoOptions"]


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    tabs: int
    native: int
    engine: Literal["auto", "webgpu", "wasm"] = "auto"
    path: Literal["auto", "webrtc", "relay"] = "auto"
    model: str = ""
    models: Path | None = None
    """Directory of models; None: the relay's own default."""
    api_state: Path | None = None
    """The relay's state directory, where its API's keys lie; None: the API is off."""
    max_blocks: int | None = None
    """For each node; None shares the model evenly."""

    @property
    def nodes(self) -> int:
        return self.tabs + self.native


class DemoNetwork:
    """`async with DemoNetwork(options) as network`."""

    def __init__(self, options: DemoOptions) -> None:
        self.options = options
        self._stack = AsyncExitStack()
        self._playwright: Playwright | None = None
        self.visitors: list[Visitor] = []

    async def __aenter__(self) -> DemoNetwork:
        try:
            from playwright.async_api import async_playwright
        except ModuleNotFoundError:
            raise LocalError("the demo needs its extra: pip install 'kwaainet[demo]'") from None
        cdn, models = default_cdn(), self.options.models or default_models()
        if cdn is None or not (cdn / "sovereign-ai.js").exists():
            raise LocalError("the browser files are not built yet; run `make build` first")
        state = self.options.api_state
        settings = RelaySettings(
            host="127.0.0.1", port=0, cdn=cdn, models=models, state=state, api=state is not None
        )
        async with AsyncExitStack() as stack:
            self.relay = await stack.enter_async_context(Relay(settings))
            # Another name for the same machine: the site and its CDN are different sites.
            self.cdn = f"http://localhost:{self.relay.port}"
            site = ExampleSite(default_examples(), self.cdn)
            self.site = await stack.enter_async_context(site)
            self._playwright = await stack.enter_async_context(async_playwright())
            names = sorted(path.parent.name for path in models.glob("[!.]*/manifest.json"))
            name = self.options.model or (names[0] if names else "")
            if name not in names:
                known = ", ".join(names) or "none"
                raise LocalError(f"there is no model {name!r} here; there are: {known}")
            self.models = models
            self.manifest: Manifest = decode_manifest(
                (models / name / "manifest.json").read_bytes()
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def share(self) -> int | None:
        """Blocks that each node may hold, so that the answer needs all of them."""
        if self.options.max_blocks is not None or self.options.nodes < 2:
            return self.options.max_blocks
        return math.ceil(self.manifest.blocks / self.options.nodes)

    def page_url(self) -> str:
        """The chat page with this demo's settings on its tag."""
        attributes = {
            "max-resources": "cpu:100,memory:1024,storage:500",
            "engine": self.options.engine,
            "path": self.options.path,
            "model": self.manifest.name,
        }
        if self.share is not None:
            attributes["max-blocks"] = str(self.share)
        return self.site.page("chat", attributes)

    async def add_visitor(self, *flags: str, storage: bool = True) -> Visitor:
        """A new profile on the chat page, not yet asked."""
        assert self._playwright is not None
        gpu = SOFTWARE_WEBGPU if self.options.engine == "webgpu" else []
        context = await self._stack.enter_async_context(
            profile(self._playwright, *gpu, *flags, storage=storage)
        )
        visitor = await Visitor.open(context, self.page_url())
        self.visitors.append(visitor)
        return visitor

    async def add_native(self, state: Path | None = None) -> None:
        """A native node in a process of its own; `state` is its identity's directory."""
        if state is None:
            temporary = tempfile.TemporaryDirectory(prefix="kwaainet-node-")
            state = Path(self._stack.enter_context(temporary))
        arguments = ["start", "--relay", self.relay.url, "--state", str(state)]
        arguments += ["--model", self.manifest.name, "--path", self.options.path]
        if self.share is not None:
            arguments += ["--max-blocks", str(self.share)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay_server", *arguments, stdout=asyncio.subprocess.DEVNULL
        )

        async def end() -> None:
            if process.returncode is None:
                process.terminate()
            await process.wait()

        self._stack.push_async_callback(end)

    def uncovered(self) -> list[int]:
        """Blocks that nobody has announced yet."""
        served = {
            block
            for entry in self.relay.hub.directory
            for block in range(entry.announcement.first, entry.announcement.last)
        }
        return [block for block in range(self.manifest.blocks) if block not in served]

    def _serving(self) -> int:
        return sum(entry.announcement.serves for entry in self.relay.hub.directory)

    async def covered(self, timeout: float = 90.0) -> None:
        """Wait until every block is served. Raises LocalError."""
        try:
            async with asyncio.timeout(timeout):
                # The hub is another's state; a look ten times a second costs nothing.
                while self.uncovered() or self._serving() < self.options.nodes:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise LocalError(f"nobody serves blocks {self.uncovered()} yet") from None
