"""The running node's control socket: the calls of loader/protocol.ts, one JSON line each.

Only the owner of the state directory can open it. Calls that are about the process rather than
the node are answered by whoever made the door.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pyodide_node.errors import LocalError

__all__ = ["Door", "ask"]

_LINE: Final = 4_000_000
"""Bytes of one call or reply: a prompt of a long context fits."""

Answerer = Callable[[Any], Awaitable[Any]]


class Door:
    """`deliver` takes calls as JSON; what it posts in reply goes back in by `take`."""

    def __init__(
        self, path: Path, deliver: Callable[[str], None], own: Mapping[str, Answerer]
    ) -> None:
        self._path = path
        self._deliver = deliver
        self._own = own
        self._numbers = itertools.count(1)
        self._callers: dict[int, tuple[int, asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Door:
        """The caller holds the node's lock, so a socket that is there is of a dead process."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_LINE)
        self._path.chmod(0o600)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.close()
        self._path.unlink(missing_ok=True)

    def take(self, message: dict[str, Any]) -> None:
        """A reply of the node's; notices are not for callers."""
        if message.get("type") != "reply" or message["id"] not in self._callers:
            return
        number, writer = self._callers[message["id"]]
        if message["event"] != "chunk":
            del self._callers[message["id"]]
        _write(writer, message | {"id": number})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while line := await reader.readline():
                await self._call(line, writer)
        except (ValueError, OSError):  # a line too long, or the caller left
            pass
        finally:
            self._open.discard(writer)
            for number, (_, caller) in list(self._callers.items()):
                if caller is writer:
                    del self._callers[number]
                    self._post(-number, "cancel", {"call": number})
            writer.close()

    async def _call(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            call = json.loads(line)
            method, number = str(call["method"]), int(call["id"])
        except (ValueError, KeyError, TypeError) as error:
            _write(writer, _failed(-1, f"a malformed call: {error}"))
            return
        if method in self._own:
            value = await self._own[method](call.get("params"))
            _write(writer, {"type": "reply", "id": number, "event": "done", "value": value})
            with contextlib.suppress(OSError):
                await writer.drain()
            return
        inside = next(self._numbers)
        self._callers[inside] = number, writer
        self._post(inside, method, call.get("params"))

    def _post(self, number: int, method: str, params: Any) -> None:
        self._deliver(json.dumps({"id": number, "method": method, "params": params}))


def ask(path: Path, method: str, params: Any = None, timeout: float = 10.0) -> Any:
    """One call to the running node. Raises LocalError when there is none, or with its error."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            call = {"id": 1, "method": method, "params": params}
            connection.sendall(json.dumps(call).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline(_LINE)
    except TimeoutError:
        raise LocalError(f"the node does not answer within {timeout:.0f} s") from None
    except OSError:
        line = b""
    if not line:
        raise LocalError("no node is running; start it with `kwaainet start --daemon`")
    reply = json.loads(line)
    if reply["event"] == "error":
        raise LocalError(str(reply["error"]["message"]))
    return reply["value"]


def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(message).encode() + b"\n")


def _failed(number: int, text: str) -> dict[str, Any]:
    error = {"code": "ConfigError", "message": text, "data": {}}
    return {"type": "reply", "id": number, "event": "error", "error": error}
