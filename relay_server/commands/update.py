"""`kwaainet update`: newer releases, by pip."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from pyodide_node import __version__
from pyodide_node.errors import LocalError

__all__ = ["newest", "update"]

_PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def update(
    *,
    check: Annotated[bool, Parameter(negative=())] = False,
    json_form: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Install the newest release from where pip looks for packages.

    With --check it only tells, and exits with 1 when there is a newer one.

    Parameters
    ----------
    check
        Install nothing.
    json_form
        As JSON, for scripts.
    """
    console = Console(highlight=False, emoji=False)
    found = newest()
    if check and json_form:
        print(json.dumps({"installed": __version__, "newest": found or __version__}))
    elif found is None:
        console.print(f"kwaainet {__version__} is the newest release.")
    elif check:
        console.print(f"kwaainet {found} is out, this is {__version__}: `kwaainet update`")
    if found is None:
        return
    if check:
        sys.exit(1)
    _pip("--upgrade", "kwaainet")
    console.print(f"kwaainet {found} is installed; `kwaainet restart` runs it.")


def newest() -> str | None:
    """The newest release's version; None when it is the one that is installed.

    Raises LocalError when pip finds no release at all.
    """
    report = _pip("--upgrade", "--dry-run", "--no-deps", "--report", "-", "kwaainet")
    for package in json.loads(report)["install"]:
        return str(package["metadata"]["version"])
    return None


def _pip(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - words of our own
        [*_PIP, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = (lines or done.stderr.splitlines() or ["it said nothing"])[-1]
        raise LocalError(f"pip found no release: {said.removeprefix('ERROR: ')}")
    return done.stdout
