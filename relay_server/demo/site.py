"""The example pages, served as a site owner would: from another origin than the CDN's."""

from __future__ import annotations

import asyncio
import html
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pyodide_node.errors import ConfigError

__all__ = ["ExampleSite", "default_examples"]

_TAG = re.compile(r"<(?:script|meta)\b[^>]*(?:/sovereign-ai\.js|name=\"kwaainet\")[^>]*>")
"""The tag itself, or the chat page's word on what it will put there."""
_ATTRIBUTE = "data-"


def default_examples() -> Path:
    """The pages of this checkout. Raises ConfigError when they are not there."""
    folder = Path(__file__).parents[2] / "web_examples"
    if not folder.is_dir():
        raise ConfigError("the example pages are missing; run the demo from a checkout")
    return folder


class ExampleSite:
    """`async with ExampleSite(folder, cdn) as site: site.page("chat", {...})`.

    `__CDN__` in a page becomes the CDN's origin; query parameters that begin with "data-" are
    put on the tag, so that one page can stand for many visitors with different settings.
    """

    def __init__(self, folder: Path, cdn: str) -> None:
        self._folder = folder.resolve()
        self._cdn = cdn
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def page(self, name: str, attributes: Mapping[str, str]) -> str:
        """URL of an example with these `data-*` attributes on its tag."""
        query = urlencode({_ATTRIBUTE + key: value for key, value in attributes.items()})
        return f"{self.url}/{name}/{'?' + query if query else ''}"

    async def __aenter__(self) -> ExampleSite:
        listener = socket.create_server(("127.0.0.1", 0))
        self._port = listener.getsockname()[1]
        app = Starlette(routes=[Route("/{path:path}", self._serve)])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._serving = asyncio.create_task(self._server._serve([listener]), name="example site")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None and self._serving is not None:
            self._server.should_exit = self._server.force_exit = True
            await self._serving

    async def _serve(self, request: Request) -> Response:
        path = (self._folder / request.path_params["path"]).resolve()
        if path.is_dir():
            path /= "index.html"
        if not path.is_relative_to(self._folder) or not path.is_file():
            return Response("not found", 404)
        if path.suffix != ".html":
            return FileResponse(path)
        attributes = {
            key: value for key, value in request.query_params.items() if key.startswith(_ATTRIBUTE)
        }
        page = path.read_text("utf-8").replace("__CDN__", self._cdn)
        return Response(
            _TAG.sub(lambda tag: _with(tag[0], attributes), page), media_type="text/html"
        )


def _with(tag: str, attributes: Mapping[str, str]) -> str:
    """The tag with these attributes in place of its own of the same names."""
    for name, value in attributes.items():
        if not re.fullmatch(r"data-[a-z-]{1,40}", name):
            continue
        tag = re.sub(rf'\s{name}="[^"]*"', "", tag)
        tag = f'{tag[:-1]} {name}="{html.escape(value, quote=True)}">'
    return tag
