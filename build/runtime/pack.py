"""Packs Python for the tab: byte code without docstrings, stored, in a fixed order.

Runs inside Pyodide, at build time, so that the byte code is that of the interpreter in the tab.
Byte code, because compiling the sources again on every start costs a second or two; stored,
because brotli on the way does better than deflate inside; fixed dates and hash-based validation,
so that the same sources give the same file and the same hash.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import types
import zipfile
from collections.abc import Iterable
from typing import Any

__all__ = ["pack"]

UNCHECKED_HASH = (0b01).to_bytes(4, "little")
"""PEP 552: never look for the source."""

NO_LOCATION = 0x80 | 15 << 3
LOCATION_UNITS = 8
"""CPython's InternalDocs/code_objects.md: entry kind 15, for up to eight code units."""

EPOCH = (1980, 1, 1, 0, 0, 0)

# What the node never imports, by the first part of the path. Pyodide and asyncio need more than
# one would think: ssl, subprocess, socket, tempfile, zipfile and shutil are imported at start.
STDLIB_LEFT_OUT = """
_pydatetime _pyio _pylong _pyrepl _ssl antigravity argparse bdb cProfile calendar cmd code
colorsys compileall configparser csv ctypes curses dbm difflib doctest email filecmp fileinput
ftplib getopt getpass gettext graphlib html http imaplib mailbox mimetypes modulefinder
multiprocessing netrc nturl2path optparse pdb pickletools platform plistlib poplib profile
pstats pty py_compile pyclbr pydoc pydoc_data quopri rlcompleter runpy sched shelve shlex site-
packages smtplib socketserver sqlite3 sre_compile sre_constants sre_parse stringprep
symtable tabnanny tarfile test this timeit tomllib trace tracemalloc tty turtle unittest venv
wave webbrowser wsgiref xml xmlrpc zipapp zoneinfo __hello__ __phello__ _strptime _markupbase
_sysconfigdata__emscripten_wasm32-emscripten
"""
SITE_LATER = ("jinja2", "markupsafe")
"""Packages that few starts need: unpacked when something imports them."""
SITE_LEFT_OUT = ("jinja2/constants", "jinja2/debug", "jinja2/meta", "jinja2/nativetypes")
EXTENSION = "-emscripten.so"
"""A wheel for another system serves too, where its extension module only makes it quicker."""

STDLIB_KEPT_ENCODINGS = frozenset(
    {"__init__", "aliases", "ascii", "cp437", "latin_1", "unicode_escape", "utf_8"}
)
PARTS_LEFT_OUT = (
    "asyncio/__main__",
    "asyncio/proactor_events",
    "asyncio/tools",
    "asyncio/windows_",
    "concurrent/futures/interpreter",
    "concurrent/futures/process",
    "concurrent/interpreters",
    "importlib/metadata",
    "importlib/resources",
    "importlib/simple",
    "logging/config",
    "logging/handlers",
    "pyodide/console",
    "urllib/error",
    "urllib/request",
    "urllib/response",
    "urllib/robotparser",
)


def pack(kind: str, names: Iterable[str], contents: Iterable[Any]) -> bytes:
    """Called by python.mjs; `contents` are JavaScript's typed arrays."""
    files = {name: content.to_bytes() for name, content in zip(names, contents, strict=True)}
    if kind == "stdlib":
        return pack_stdlib(*files.values())
    return pack_site(files.values()) if kind == "site" else pack_node(files)


def pack_stdlib(original: bytes) -> bytes:
    """Pyodide's python_stdlib.zip, without what the node never imports, as a zip again."""
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    wanted = ((name, data) for name, data in files.items() if _wanted(name))
    return _zip(wanted)


def pack_site(wheels: Iterable[bytes]) -> bytes:
    """Wheels laid over each other, as a bundle: modules, and extension modules as files; under
    "later" the bundles of packages by name, packed each for itself."""
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            files.update((name, archive.read(name)) for name in archive.namelist())
    kept = {
        name: data
        for name, data in files.items()
        if name.endswith((".py", EXTENSION)) and not name.startswith(SITE_LEFT_OUT)
    }
    later = {}
    for package in SITE_LATER:
        names = [name for name in kept if name.startswith(f"{package}/")]
        modules = _modules({name: kept.pop(name) for name in names})
        bare = {name: (many, _without_lines(code)) for name, (many, code) in modules.items()}
        later[package] = marshal.dumps(bare)
    return marshal.dumps(_bundle(kept) | {"later": later})


def pack_node(files: dict[str, bytes]) -> bytes:
    """Modules by their path, as a bundle: what loader/worker/prelude.py installs."""
    return marshal.dumps(_bundle(files))


def _bundle(files: dict[str, bytes]) -> dict[str, Any]:
    others = {name: data for name, data in sorted(files.items()) if not name.endswith(".py")}
    return {"modules": _modules(files), "files": others}


def _modules(files: dict[str, bytes]) -> dict[str, tuple[bool, types.CodeType]]:
    modules: dict[str, tuple[bool, types.CodeType]] = {}
    for name, data in sorted(files.items()):
        if name.endswith(".py"):
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            modules[module] = (name.endswith("__init__.py"), _compile(name, data))
    return modules


def _wanted(name: str) -> bool:
    head, _, rest = name.partition("/")
    if head.removesuffix(".py") in STDLIB_LEFT_OUT.split() or not name.endswith(".py"):
        return False
    if head == "encodings":
        return rest.removesuffix(".py") in STDLIB_KEPT_ENCODINGS
    return not name.startswith(PARTS_LEFT_OUT)


def _zip(files: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, source in sorted(files):
            header = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH
            header += importlib.util.source_hash(source)
            code = marshal.dumps(_without_lines(_compile(name, source)))
            archive.writestr(zipfile.ZipInfo(name + "c", EPOCH), header + code)
    return out.getvalue()


def _compile(name: str, source: bytes) -> types.CodeType:
    code: types.CodeType = compile(source, name, "exec", dont_inherit=True, optimize=2)
    return code


def _without_lines(code: types.CodeType) -> types.CodeType:
    """Line tables compress badly: in the standard library they are a third of the download.

    An empty one would break `traceback`; this one says "no location" for every instruction.
    """
    constants = tuple(
        _without_lines(item) if isinstance(item, types.CodeType) else item
        for item in code.co_consts
    )
    full, rest = divmod(len(code.co_code) // 2, LOCATION_UNITS)
    table = bytes([NO_LOCATION | (LOCATION_UNITS - 1)]) * full
    if rest:
        table += bytes([NO_LOCATION | (rest - 1)])
    return code.replace(co_linetable=table, co_consts=constants)
