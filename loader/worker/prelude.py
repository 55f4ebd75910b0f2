"""Run in a fresh interpreter before its snapshot is taken; `install` after every start.

What is imported and done here is in the snapshot, so that a restarted worker need not do it
again: the standard library's modules, and what is slow the first time only.
"""

from __future__ import annotations

import array  # noqa: F401
import asyncio  # noqa: F401
import base64  # noqa: F401
import collections.abc  # noqa: F401
import copy  # noqa: F401
import dataclasses
import datetime  # noqa: F401
import decimal  # noqa: F401
import enum  # noqa: F401
import hashlib  # noqa: F401
import heapq  # noqa: F401
import importlib.abc
import importlib.machinery
import importlib.util
import inspect  # noqa: F401
import json  # noqa: F401
import marshal
import os
import random
import secrets  # noqa: F401
import site
import statistics  # noqa: F401
import sys
import types
import typing
import urllib.parse  # noqa: F401
import uuid  # noqa: F401
from collections.abc import Sequence

import annotationlib  # noqa: F401

__all__ = ["install"]

Bundle = dict[str, tuple[bool, types.CodeType]]


class _Bundled(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules by name, as byte code that is in memory already: no paths, no files, no zip."""

    def __init__(self) -> None:
        self.modules: Bundle = {}
        self.later: dict[str, bytes] = {}
        self.folder = site.getsitepackages()[0]

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        packed = self.later.pop(fullname, None)
        if packed is not None:
            self.modules.update(marshal.loads(packed))  # noqa: S302  (pinned, as in `install`)
        if fullname not in self.modules:
            return None
        is_package, _ = self.modules[fullname]
        spec = importlib.util.spec_from_loader(fullname, self, is_package=is_package)
        if spec is not None and is_package:
            # Extension modules of the package lie there.
            spec.submodule_search_locations = [f"{self.folder}/{fullname.replace('.', '/')}"]
        return spec

    def exec_module(self, module: types.ModuleType) -> None:
        _, code = self.modules[module.__name__]
        exec(code, module.__dict__)  # noqa: S102  (pinned by the hash of its bundle)


_bundled = _Bundled()
sys.meta_path.insert(0, _bundled)


def install(bundles: typing.Any) -> None:
    """`bundles` are ArrayBuffers made by build/runtime/pack.py: modules, and files beside them."""
    # Its state came with the snapshot: every start would draw the same numbers.
    random.seed()
    for bundle in bundles:
        content = marshal.loads(bundle.to_bytes())  # noqa: S302  (pinned by its hash)
        _bundled.modules.update(content["modules"])
        _bundled.later.update(content.get("later", {}))
        for name, data in content["files"].items():
            path = os.path.join(_bundled.folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
    sys.path_importer_cache.clear()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """The first dataclass and protocol: later ones are quicker."""

    number: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


class _Protocol(typing.Protocol):
    def method(self) -> int: ...
