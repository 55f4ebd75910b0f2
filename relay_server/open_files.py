"""How many files, and so connections, this process may have open."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["SPARE_FILES", "raise_open_files"]

SPARE_FILES: Final = 500
"""For listeners, downloads, the state and what libraries open."""

_MANY: Final = 1 << 20


def raise_open_files() -> int:
    """Raise this process's limit as far as it may, and tell it: shells give 1024."""
    if sys.platform == "win32":
        return _MANY
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MANY if hard == resource.RLIM_INFINITY else min(hard, _MANY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
