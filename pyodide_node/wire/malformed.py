"""What decoding hostile bytes can raise."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["MALFORMED"]

MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""msgspec raises the second for text that is not UTF-8, the third for nesting in fields that it
skips: neither is among its own errors, and either would end whoever catches only those."""
