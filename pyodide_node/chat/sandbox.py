"""What chat templates may do: an allow-list over Jinja's sandbox. All that costs is metered."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from jinja2 import pass_context
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from pyodide_node.chat.metering import CALL, MAX_TEXT, Meter, TooMuch, metered
from pyodide_node.errors import ConfigError

__all__ = ["Sandbox"]

MAX_CALLS: Final = 24
"""Macros and recursive loops within each other: few enough for the stack of a browser's worker."""
_LONG_NUMBER = re.compile(r"\d{4}|\*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS: Final = _words("""capitalize center count d default dictsort e escape first float
forceescape format indent int items join last length list lower map max min reject rejectattr
replace reverse round safe select selectattr sort string sum title tojson trim unique upper abs""")

_TESTS: Final = _words("""boolean callable defined divisibleby eq equalto even false filter float
ge gt in integer iterable le lower lt mapping ne none number odd sameas sequence string test true
undefined upper == != > >= < <= greaterthan lessthan""")

_METHODS: Final[tuple[tuple[type, frozenset[str]], ...]] = (
    (
        str,
        _words("""capitalize casefold center count endswith expandtabs find format index isalnum
        isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace
        istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind
        rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title
        upper zfill"""),
    ),
    (dict, _words("copy get items keys values")),
    (list, _words("copy count index")),
    (tuple, _words("count index")),
    (
        LoopContext,
        _words("""changed cycle depth depth0 first index index0 last length nextitem previtem
        revindex revindex0"""),
    ),
)

_COMPILER_S: Final = ("_loop_vars", "_block_vars")
"""Keyword arguments that Jinja's compiler adds to every call in a loop."""


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment as transformers sets it up, for one template."""

    intercepted_binops = _words("+ - * / // % **")

    def __init__(self, extensions: Sequence[type[Extension]]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=extensions,
            # Folding constants would do a template's work before anybody counts it.
            optimized=False,
            finalize=_finalized,
            cache_size=0,
        )
        self.meter = Meter()
        self._calls = 0
        filters: dict[str, Any] = {**FILTERS, "tojson": _tojson}
        tests: dict[str, Any] = {**TESTS}
        self.filters = {name: metered(self.meter, name, filters[name]) for name in _FILTERS}
        self.tests = {name: metered(self.meter, name, tests[name]) for name in _TESTS}
        self._now: Callable[[str], str] = lambda pattern: ""
        self.globals = {
            "raise_exception": _raise,
            "strftime_now": self.strftime,
            "range": self.range,
            "namespace": Namespace,
            "dict": dict,
        }

    def begin(self, now: Callable[[str], str]) -> None:
        self.meter.reset()
        self._calls = 0
        self._now = now

    # --- what the rewritten template calls ------------------------------------------------------

    def spend(self, cost: int) -> bool:
        self.meter.spend(cost)
        return True

    def weighed(self, value: Any) -> Any:
        self.meter.weigh(value)
        return value

    def touched(self, value: Any) -> Any:
        self.meter.touch(value)
        return value

    def joined(self, *values: Any) -> str:
        """`a ~ b`."""
        self.meter.print(*values)
        return self.meter.text("".join(map(str, values)))

    def handle_exception(self, source: str | None = None) -> NoReturn:
        raise  # it is called while one is handled; Jinja would rewrite its traceback, at length

    # --- what templates may do ------------------------------------------------------------------

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS)

    def is_safe_callable(self, obj: Any) -> bool:
        # An undefined one says so itself, by its name.
        if isinstance(obj, (Macro, LoopContext, _Format, Undefined)) or obj in (
            *(dict, Namespace, _raise),
        ):
            return True
        owner = getattr(obj, "__self__", None)
        return self.is_safe_attribute(owner, getattr(obj, "__name__", "_"), obj)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        owner = getattr(value, "__self__", None)
        if not isinstance(owner, str) or getattr(value, "__name__", "") != "format":
            return None
        return _Format(self, owner)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        self = __self
        owner = getattr(__obj, "__self__", None)
        if owner is self:  # what the rewriting put there, often
            return __obj(*args)
        if self._calls >= MAX_CALLS:
            raise TooMuch("macros within macros without end")
        if isinstance(owner, (str, list, tuple, dict, LoopContext)):
            given = {name: one for name, one in kwargs.items() if name not in _COMPILER_S}
            self.meter.method(owner, __obj.__name__, args, given)
        elif __obj is dict or __obj is Namespace:
            self.meter.weigh(list(args))
        self.meter.spend(CALL)
        self._calls += 1
        try:
            result = super().call(__context, __obj, *args, **kwargs)
        finally:
            self._calls -= 1
        return self.meter.made(result)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.meter.operation(operator, left, right)
        return self.meter.made(super().call_binop(context, operator, left, right))

    def range(self, *args: int) -> builtins.range:
        made = builtins.range(*args)
        if len(made) > MAX_TEXT:
            raise TooMuch(f"a range of {len(made)}")
        return made

    def strftime(self, pattern: str) -> str:
        if len(pattern) > 100 or re.search(r"%[^a-zA-Z%]", pattern):
            raise TooMuch("a date in a format with widths")
        return self._now(pattern)


class _Formatter(SandboxedFormatter):
    """`str.format`; widths of millions are refused before they are filled."""

    def __init__(self, environment: Sandbox) -> None:
        super().__init__(environment)
        self._meter = environment.meter

    def format_field(self, value: Any, format_spec: str) -> Any:
        if _LONG_NUMBER.search(format_spec):
            raise TooMuch("a format with a width of thousands")
        self._meter.weigh(value)
        return self._meter.text(str(super().format_field(value, format_spec)), total=True)


class _Format:
    """The method `format` of a text."""

    def __init__(self, environment: Sandbox, text: str) -> None:
        self._environment = environment
        self._text = text

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        self._environment.meter.weigh(self._text)
        return str(_Formatter(self._environment).vformat(self._text, args, kwargs))


@pass_context
def _finalized(context: Any, value: Any) -> str:
    """What `{{ value }}` prints. Asks for the context so that nothing is printed beforehand."""
    if isinstance(value, str):
        return str(context.environment.meter.text(value, total=True))
    context.environment.meter.print(value)
    return str(context.environment.meter.text(str(value), total=True))


def _raise(message: object = "") -> None:
    raise ConfigError(
        f"this model's chat template does not take these messages: {str(message)[:300]}",
        setting="messages",
    )


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: without the escapes for HTML of Jinja's own."""
    return json.dumps(
        value,
        ensure_ascii=bool(ensure_ascii),
        indent=indent,
        separators=separators,
        sort_keys=bool(sort_keys),
    )
