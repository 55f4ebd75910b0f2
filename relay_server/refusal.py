"""Why a connection ends, in words that its node is told before it is closed."""

from __future__ import annotations

from typing import Final

__all__ = ["POLICY", "PROTOCOL", "TOO_BIG", "Refusal"]

# RFC 6455, section 7.4.1
PROTOCOL: Final = 1002
POLICY: Final = 1008
TOO_BIG: Final = 1009


class Refusal(Exception):
    """`code` names it to programs, the message to people, `close_code` to the WebSocket."""

    def __init__(self, code: str, message: str, close_code: int = POLICY) -> None:
        super().__init__(message)
        self.code = code
        self.close_code = close_code
