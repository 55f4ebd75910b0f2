"""The node's log: one file that turns over, and reading its end as it grows."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

__all__ = ["LOG", "end_of", "follow", "last_lines", "log_to"]

LOG: Final = logging.getLogger("kwaainet")
LOG.addHandler(logging.NullHandler())  # the terminal is told in other ways
_BYTES, _FILES = 5_000_000, 3
_LOOK_EVERY = 0.2


def log_to(path: Path) -> None:
    """Let everything from INFO on go to the file at `path`; times are UTC."""
    handler = RotatingFileHandler(path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8")
    form = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines, those of the file before it included when this one is short."""
    return end_of(path, count)[0]


def end_of(path: Path, count: int) -> tuple[list[str], int]:
    """As `last_lines`, and the byte of the file behind the last of them."""
    kept: deque[str] = deque(maxlen=count)
    end = 0
    for file in (path.with_name(f"{path.name}.1"), path):
        end = 0
        try:
            with file.open("rb") as lines:
                for line in lines:
                    kept.append(line.decode(errors="replace").rstrip("\n"))
                    end += len(line)
        except FileNotFoundError:
            continue
    return list(kept), end


def follow(path: Path, begin: int) -> Iterator[str]:
    """Lines from byte `begin` of the file on as they are written, over its turns; for ever."""
    file = None
    try:
        while True:
            if file is None and path.exists():
                file = path.open(encoding="utf-8", errors="replace")
                file.seek(begin)
            line = file.readline() if file is not None else ""
            if line:
                yield line.rstrip("\n")
                continue
            if file is not None and _turned(path, file.fileno()):
                file.close()
                file = path.open(encoding="utf-8", errors="replace")
                continue
            time.sleep(_LOOK_EVERY)
    finally:
        if file is not None:
            file.close()


def _turned(path: Path, file: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file).st_ino
    except FileNotFoundError:
        return False  # between two files; the next one comes at once
