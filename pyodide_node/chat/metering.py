"""What a chat template may cost, counted while it runs.

One step is about what CPython does in a tenth of a microsecond: one node of the template, one
item of a list, sixteen characters of a text. Sizes of results are judged before they are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from types import GeneratorType
from typing import Any, Final

from jinja2.runtime import Undefined

__all__ = ["CALL", "MAX_TEXT", "Meter", "TooMuch", "metered"]

MAX_TEXT: Final = 1 << 20
"""Characters of one text: twice what a context of 128k tokens holds."""
MAX_STEPS: Final = 2_000_000
"""A thousand messages through the longest known templates take a third; a tab stands still for a
second or two."""
MAX_PRINTED: Final = 4 * MAX_TEXT
"""Characters printed in all, into variables and macros too."""
CALL: Final = 10
"""Steps of any call."""
MAX_BITS: Final = 4096
MAX_DEPTH: Final = 32
MAX_WIDTH: Final = 64
_CHARACTERS_A_STEP: Final = 16
_CONVERSION = re.compile(r"%[^a-zA-Z%]*[ra]|\d{4}|\*")
"""In a %-format: what may make ten characters of one, or a width of thousands."""

_CHEAP: Final = """
boolean callable count d default defined even false filter first float integer items iterable last
length list lower map mapping none number odd reject rejectattr reverse safe sameas select
selectattr sequence string test true undefined upper
"""
"""Filters and tests that do not go through what they are given, or pay as they go."""
_PRINTABLE: Final = (str, int, float, list, tuple, dict, range, Undefined, type(None))


class TooMuch(Exception):
    """More than a chat template may take."""


class Meter:
    """Counts one rendering; `reset` begins the next."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._steps = MAX_STEPS
        self._printed = MAX_PRINTED

    def spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise TooMuch("it does not come to an end")

    def text(self, made: str, *, total: bool = False) -> str:
        """`made` itself, when it is no longer than a text may be; `total`: it is printed."""
        self.size(len(made))
        if total:
            self._printed -= len(made)
            if self._printed < 0:
                raise TooMuch(f"it prints more than {MAX_PRINTED} characters")
        return made

    def size(self, characters: int) -> None:
        """Pay for a text of so many characters that is about to be made."""
        if characters > MAX_TEXT:
            raise TooMuch(f"a text of {characters} characters, more than {MAX_TEXT}")
        self.spend(1 + characters // _CHARACTERS_A_STEP)

    def made(self, result: Any) -> Any:
        """Pay for a result; iterators pay as they go."""
        if isinstance(result, str):
            return self.text(result)
        if isinstance(result, (list, tuple, dict)):
            self.spend(1 + len(result))
        elif isinstance(result, int):
            self.bits(result.bit_length())
        elif isinstance(result, (GeneratorType, map, filter, zip, reversed)):
            return self._counted(result)
        return result

    def bits(self, count: int) -> None:
        if count > MAX_BITS:
            raise TooMuch(f"a number of {count} bits")

    def weigh(self, value: Any, depth: int = 0) -> None:
        """Pay for going through all of `value`, as comparing does."""
        if depth > MAX_DEPTH:
            raise TooMuch("lists within lists without end")
        if isinstance(value, str):
            self.spend(1 + len(value) // _CHARACTERS_A_STEP)
        elif isinstance(value, (list, tuple)):
            self.spend(1 + len(value))
            for item in value:
                self.weigh(item, depth + 1)
        elif isinstance(value, Mapping):
            self.spend(1 + len(value))
            for pair in value.items():
                self.weigh(pair, depth + 1)
        else:
            self.spend(1)

    def touch(self, value: Any) -> None:
        """Pay for copying `value`, its parts by reference."""
        sized = isinstance(value, (str, list, tuple, dict))
        self.spend(1 + len(value) // _CHARACTERS_A_STEP if sized else 1)

    def print(self, *values: Any, each: int = 4) -> int:
        """Pay for the text of `values`; `each` more characters for every part. Characters."""
        characters = sum(self._characters(value, each, 0) for value in values)
        self.size(characters)
        return characters

    def _characters(self, value: Any, each: int, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise TooMuch("lists within lists without end")
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, _PRINTABLE):
            raise TypeError(f"a {type(value).__name__} is no text")
        if isinstance(value, int):
            self.bits(value.bit_length())
        if not isinstance(value, (list, tuple, dict)):
            return 32
        self.spend(len(value))
        parts: Iterable[Any] = value
        if isinstance(value, dict):
            parts = (part for pair in value.items() for part in pair)
        return 2 + sum(each + self._characters(part, each, depth + 1) for part in parts)

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(1)
            yield item

    # --- before something is done -----------------------------------------------------------

    def operation(self, operator: str, left: Any, right: Any) -> None:
        """Before `left operator right`."""
        self.spend(1)
        texts = (str, list, tuple)
        match operator:
            case "+" if isinstance(left, texts) and isinstance(right, texts):
                self.size(len(left) + len(right))
            case "*" if isinstance(left, texts) or isinstance(right, texts):
                many, times = (left, right) if isinstance(left, texts) else (right, left)
                if isinstance(times, int):
                    self.size(len(many) * max(0, times))
            case "*" if isinstance(left, int) and isinstance(right, int):
                self.bits(left.bit_length() + right.bit_length())
            case "**" if isinstance(left, int) and isinstance(right, int):
                self.bits(left.bit_length() * max(0, right))
            case "%" if isinstance(left, str):
                self.format(left, right)

    def format(self, pattern: str, given: Any) -> None:
        """Before `pattern % given`."""
        if _CONVERSION.search(pattern):
            raise TooMuch("a format with %r, %a or a width of thousands")
        longest = self.print(given) + 1000
        self.size(len(pattern) + pattern.count("%") * longest)

    def method(self, owner: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Before `owner.name(*args, **kwargs)`."""
        self.touch(owner)
        if isinstance(owner, str) and name in _METHODS:
            _METHODS[name](self, owner, *args, **kwargs)
        elif name != "get" and not isinstance(owner, str):
            self.weigh(owner if name in ("count", "index") else None)
        for argument in (*args, *kwargs.values()):
            self.weigh(argument)


def metered(meter: Meter, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test of Jinja's that pays before and after."""
    passed = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def paying(*args: Any, **kwargs: Any) -> Any:
        given = args[passed:]
        meter.spend(CALL)
        if name in _CHEAP.split():
            for argument in given:
                meter.touch(argument)
        else:
            for argument in (*given, *kwargs.values()):
                meter.weigh(argument)
        if name in _FILTERS:
            given = _FILTERS[name](meter, *given, **kwargs) or given
        return meter.made(function(*args[:passed], *given, **kwargs))

    return paying


# --- what methods and filters will make: each takes what they take -----------------------------


def _replaced(meter: Meter, text: str, old: str, new: str, count: int = -1) -> None:
    found = str(text).count(str(old))
    meter.size(len(str(text)) + found * max(0, len(str(new)) - len(str(old))))


def _padded(meter: Meter, text: str, width: int = 80, fill: str = " ") -> None:
    meter.size(max(len(text), width))


def _tabs(meter: Meter, text: str, tabsize: int = 8) -> None:
    meter.size(len(text) + text.count("\t") * max(0, tabsize))


def _stripped(meter: Meter, text: str, chars: str | None = None) -> None:
    meter.spend(len(str(text)) * len(chars or "") // _CHARACTERS_A_STEP)


def _join_method(meter: Meter, text: str, parts: Any) -> None:
    if not isinstance(parts, (list, tuple, dict, str)):
        raise TypeError("join takes a list")
    meter.print(list(parts), each=4 + len(text))


def _join_filter(
    meter: Meter, value: Any, d: str = "", attribute: Any = None
) -> tuple[Any, ...] | None:
    parts = list(meter._counted(value))
    meter.print(parts, each=4 + len(d))
    return (parts, d, attribute) if attribute is not None else (parts, d)


def _indented(meter: Meter, text: str, width: int | str = 4, *rest: Any, **more: Any) -> None:
    wide = len(width) if isinstance(width, str) else width
    meter.size(len(text) + wide * (1 + len(text.splitlines())))


def _rounded(meter: Meter, value: Any, precision: int = 0, method: str = "common") -> None:
    if abs(precision) > MAX_WIDTH:
        raise TooMuch(f"rounding to {precision} places")


def _summed(meter: Meter, value: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, (int, float)):
        raise TypeError("sum begins with a number")


def _formatted(meter: Meter, pattern: Any, *args: Any, **kwargs: Any) -> None:
    meter.format(str(pattern), list(args) or kwargs)


def _printed(meter: Meter, value: Any, *rest: Any, **more: Any) -> None:
    meter.print(value)


def _as_json(
    meter: Meter,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> None:
    wide = len(indent) if isinstance(indent, str) else indent or 0
    apart = sum(map(len, separators or ()))
    if wide > MAX_WIDTH or apart > MAX_WIDTH:
        raise TooMuch("JSON with an indent or separators of that width")
    meter.print(value, each=4 + apart + wide * (1 + _depth(value)))


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, (list, tuple)) else 0


_METHODS: Final[dict[str, Callable[..., None]]] = {
    "replace": _replaced,
    "center": _padded,
    "ljust": _padded,
    "rjust": _padded,
    "zfill": _padded,
    "expandtabs": _tabs,
    "strip": _stripped,
    "lstrip": _stripped,
    "rstrip": _stripped,
    "join": _join_method,
}
_FILTERS: Final[dict[str, Callable[..., tuple[Any, ...] | None]]] = {
    "replace": _replaced,
    "center": _padded,
    "trim": _stripped,
    "join": _join_filter,
    "indent": _indented,
    "round": _rounded,
    "sum": _summed,
    "format": _formatted,
    "tojson": _as_json,
    **dict.fromkeys(
        ("string", "upper", "lower", "capitalize", "title", "e", "escape", "forceescape", "safe"),
        _printed,
    ),
}
