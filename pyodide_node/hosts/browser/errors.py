"""JavaScript's errors as the node's own."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from pyodide.ffi import JsException, jsnull

from pyodide_node import errors
from pyodide_node.errors import KwaaiNetError

__all__ = ["awaited", "translated"]

_BY_NAME: dict[str, type[KwaaiNetError]] = {
    name: kind
    for name in errors.__all__
    if issubclass(kind := getattr(errors, name), KwaaiNetError)
}


@contextmanager
def translated(otherwise: type[KwaaiNetError], **data: Any) -> Iterator[None]:
    """Raise what JavaScript names; `otherwise` what it does not (a bug, or the browser's own)."""
    try:
        yield
    except JsException as error:
        raise _translation(error, otherwise, data) from error


async def awaited(promise: Awaitable[Any], otherwise: type[KwaaiNetError], **data: Any) -> Any:
    """What the promise gives; JavaScript's null, which Pyodide keeps apart, as None.

    On the way of every token, so without the context manager.
    """
    try:
        value = await promise
    except JsException as error:
        raise _translation(error, otherwise, data) from error
    return None if value is jsnull else value


def _translation(
    error: JsException, otherwise: type[KwaaiNetError], data: dict[str, Any]
) -> KwaaiNetError:
    return _BY_NAME.get(error.name, otherwise)(str(error.message), **data)
