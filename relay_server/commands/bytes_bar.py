"""A progress bar of bytes, as the commands show it that read and write big files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

__all__ = ["bytes_bar"]


@contextmanager
def bytes_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Shows what is being done, bytes done of bytes in all, their speed and the time left."""
    columns = (
        TextColumn("{task.description:18}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)
