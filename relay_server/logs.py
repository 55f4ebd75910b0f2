"""The relay's log: events with fields, for people or as JSON lines; docs/OPERATORS.md lists them.

Whoever logs, ours or a library, goes through one handler on standard error, and what must not be
written down is taken out there once more: addresses, API keys, passwords in URLs.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import sys
import threading
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from relay_server.settings import LogFormat, LogLevel

__all__ = ["LOG", "scrubbed", "write_logs"]

_COMMON: Final[tuple[Processor, ...]] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_NAME: Final = "kwaainet.relay"
LOG: Final[structlog.stdlib.BoundLogger] = structlog.wrap_logger(
    logging.getLogger(_NAME),
    processors=[
        structlog.stdlib.filter_by_level,
        *_COMMON,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)
"""`LOG.info("event", field=…)`: a name of one or two words, and numbers rather than text."""

_OURS: Final = (_NAME, "relay_server")
"""Who may say more than warnings: ICE, for one, tells addresses below them."""

_KEY: Final = re.compile(r"kwaai-[0-9a-f]{12}-[\w-]+")
_USER: Final = re.compile(r"(?<=://)[^/@\s]+@")
_IPV4: Final = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)")
_IPV6: Final = re.compile(r"(?<![\w:.])[\dA-Fa-f]*:[\dA-Fa-f:]*:[\dA-Fa-f:.]*(?:%\w+)?")


def write_logs(form: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """From now on everything that is logged in this process goes to `stream`, or to stderr."""
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_COMMON,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _scrub,
                _json() if form == "json" else _text(out),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("ERROR" if level == "error" else "WARNING")
    for name in (*_OURS, "uvicorn") if level == "debug" else _OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _crashed
    threading.excepthook = lambda args: _crashed(args.exc_type, args.exc_value, args.exc_traceback)


def scrubbed(text: str) -> str:
    """Without addresses, API keys and names and passwords in URLs."""
    text = _USER.sub("[user]@", _KEY.sub("[key]", text))
    return _IPV4.sub(_without_address, _IPV6.sub(_without_address, text))


def _without_address(found: re.Match[str]) -> str:
    candidate, _, _ = found[0].partition("%")
    end = candidate.rstrip(".:") if not candidate.endswith("::") else candidate.rstrip(".")
    try:
        ipaddress.ip_address(end)
    except ValueError:
        return found[0]
    return "[address]" + candidate[len(end) :]


def _scrub(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {name: _clean(value) for name, value in event.items()}


def _clean(value: Any) -> Any:
    match value:
        case bool() | int() | float() | None:
            return value
        case dict():
            return {_clean(key): _clean(each) for key, each in value.items()}
        case list() | tuple():
            return [_clean(each) for each in value]
        case _:
            return scrubbed(str(value))


def _json() -> Processor:
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _text(out: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty() and "NO_COLOR" not in os.environ,
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=0,
    )


def _crashed(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if error is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return
    LOG.critical("crashed", exc_info=(kind, error, trace))
