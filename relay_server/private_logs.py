"""Libraries name no address in a log, however talkative the program around the relay sets it. The
command line's own log takes addresses out besides (logs.py)."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["keep_addresses_out"]

_TALKATIVE: Final = {
    "aioice": logging.WARNING,
    "aiortc": logging.WARNING,
    "asyncio": logging.WARNING,
    "uvicorn.access": logging.CRITICAL,
    "uvicorn.asgi": logging.WARNING,
    "uvicorn.error": logging.DEBUG,
    "websockets": logging.WARNING,
}
"""Libraries that name addresses below these levels."""


def keep_addresses_out() -> None:
    """Give that level of its own to each that would say more."""
    for name, level in _TALKATIVE.items():
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < level:
            logger.setLevel(level)
