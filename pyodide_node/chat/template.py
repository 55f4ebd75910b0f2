"""Chat templates of strangers: Jinja as transformers runs it, within bounds.

A template comes with a manifest from anybody, and Jinja's own sandbox only keeps it from reaching
Python: it may still loop for ever or build a string of gigabytes. So the parsed template is
rewritten before it is compiled: every loop, macro and piece of text first *spends* what it is
about to cost (`metering.py`), and what the sandbox lets through is an allow-list (`sandbox.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from jinja2 import TemplateRuntimeError, nodes
from jinja2.environment import Template
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser

from pyodide_node.chat.metering import CALL, TooMuch
from pyodide_node.chat.sandbox import Sandbox
from pyodide_node.errors import ConfigError, ManifestError

__all__ = ["BoundedTemplate"]

MAX_NESTING: Final = 80
"""Known templates have 20 levels."""

MAX_TOKENS: Final = 800
"""In one pair of braces; the longest in known templates has a tenth."""

_STATEMENTS: Final = (
    *(nodes.Assign, nodes.AssignBlock, nodes.Break, nodes.CallBlock, nodes.Continue),
    *(nodes.ExprStmt, nodes.FilterBlock, nodes.For, nodes.If, nodes.Macro, nodes.Output),
    *(nodes.Scope, nodes.With),
)
_HELPERS: Final = (nodes.Template, nodes.Keyword, nodes.NSRef, nodes.Operand, nodes.Pair)


class BoundedTemplate:
    """One chat template, compiled. Not for two threads at once."""

    def __init__(self, source: str) -> None:
        """Raises ManifestError for what is no template or needs what chat templates do not."""
        self._environment = Sandbox([_Generation, LoopControlExtension])
        with _told():
            _check_tokens(self._environment.lex(source))
            tree = self._environment.parse(source)
            _check_nesting(tree)
            tree = _Rewriting().visit(tree)
            code = self._environment.compile(tree)
            self._template = Template.from_code(self._environment, code, self._environment.globals)

    def render(self, variables: Mapping[str, Any], now: Callable[[str], str]) -> str:
        """The text; `now` is strftime_now. Raises ConfigError when the template does not take
        these messages, ManifestError when it fails or asks for too much."""
        self._environment.begin(now)
        with _told():
            return self._environment.meter.text(self._template.render(**variables))


class _told:  # noqa: N801  (a context manager, used as a function)
    """Every way a template can fail, as this project's errors."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        match error:
            case None | ConfigError() | ManifestError():
                return
            case TooMuch():
                reason = f"it asks for too much: {error}"
            case RecursionError() | MemoryError():
                reason = "it is nested too deeply"
            case Exception():
                reason = f"{type(error).__name__}: {error}"[:300]
            case _:
                return
        raise ManifestError(
            f"This model's chat template does not work ({reason}). Give a plain prompt instead of"
            " messages, or choose another model.",
            reason=reason,
        ) from error


class _Generation(Extension):
    """`{% generation %}` marks what to train on: here only its inside counts."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own way)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), True), lineno=line)


class _Rewriting:
    """Makes a parsed template pay for what it does."""

    def visit(self, node: nodes.Node) -> Any:
        """The node to use in its place. Raises TemplateRuntimeError for what is not allowed."""
        if not isinstance(node, (nodes.Expr, *_STATEMENTS, *_HELPERS)):
            raise TemplateRuntimeError(f"chat templates have no {type(node).__name__}")
        weight = 0
        if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)):
            weight = sum(1 for _ in node.find_all(nodes.Node))
        for name, value in node.iter_fields():
            if isinstance(value, nodes.Node):
                setattr(node, name, self.visit(value))
            elif isinstance(value, list):
                setattr(node, name, list(self._listed(value)))
        match node:
            case nodes.For() | nodes.Macro() | nodes.CallBlock():
                node.body.insert(0, _spending(node, weight))
                if isinstance(node, nodes.For) and node.test is not None:
                    paid = _call(node, "spend", nodes.Const(CALL + weight))
                    node.test = nodes.And(paid, node.test, lineno=node.lineno)
            case nodes.Concat():
                return _call(node, "joined", *node.nodes)
            case nodes.Compare():
                node.expr = _call(node, "weighed", node.expr)
            case nodes.Operand() if not isinstance(node.expr, nodes.Const):
                node.expr = _call(node, "weighed", node.expr)
            case nodes.Getitem() if isinstance(node.arg, nodes.Slice):
                node.node = _call(node, "touched", node.node)
            case nodes.Getitem() if not isinstance(node.arg, nodes.Const):
                node.arg = _call(node, "weighed", node.arg)
            case nodes.Pair() if not isinstance(node.key, nodes.Const):
                node.key = _call(node, "weighed", node.key)
        return node

    def _listed(self, values: list[Any]) -> Iterator[Any]:
        for value in values:
            if isinstance(value, nodes.Output):
                texts = (one for one in value.nodes if isinstance(one, nodes.TemplateData))
                yield _spending(value, 1 + sum(len(one.data) for one in texts) // 8)
            yield self.visit(value) if isinstance(value, nodes.Node) else value


def _check_tokens(tokens: Iterable[tuple[int, str, str]]) -> None:
    """A tree of thousands of levels is the end of an interpreter in a browser's worker, even when
    it is only thrown away: its stack overflows. So none is made."""
    count = 0
    for _, kind, _ in tokens:
        count = 0 if kind in ("variable_begin", "block_begin") else count + (kind != "whitespace")
        if count > MAX_TOKENS:
            raise TooMuch("an expression without end")


def _check_nesting(tree: nodes.Node) -> None:
    level = [tree]
    for _ in range(MAX_NESTING):
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise TooMuch("expressions within expressions without end")


def _spending(at: nodes.Node, cost: int) -> nodes.Node:
    return nodes.ExprStmt(_call(at, "spend", nodes.Const(CALL + cost)), lineno=at.lineno)


def _call(at: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Call:
    """A call of one of the environment's methods, which no variable of a template can hide."""
    function = nodes.EnvironmentAttribute(name, lineno=at.lineno)
    return nodes.Call(function, list(args), [], None, None, lineno=at.lineno)
