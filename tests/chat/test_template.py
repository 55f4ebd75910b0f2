# ruff: noqa: E501  (a template a line)
"""Templates of strangers: what they may do, and that nothing they do lasts or grows for ever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyodide_node.chat.metering import MAX_TEXT
from pyodide_node.chat.template import BoundedTemplate
from pyodide_node.errors import ConfigError, KwaaiNetError, ManifestError

pytestmark = pytest.mark.timeout(60)

GROW = "{% set ns = namespace(x='a', y='a') %}{% for i in range(64) %}"


def now(pattern: str) -> str:
    return f"({pattern})"


def render(source: str, **variables: Any) -> str:
    return BoundedTemplate(source).render(variables, now)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for m in l recursive %}{{ m }}{% endfor %}", "12"),
        ("{% for a, b in {'x': 1, 'y': 2}.items() if b > 1 %}{{ a }}{% endfor %}", "y"),
        ("{% for i in l %}{% if loop.last %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% for i in l %}{{ loop.cycle('a', 'b') }}{{ loop.length }}{% endfor %}", "a2b2"),
        ("{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a }}", "1"),
        ("{% macro f(x, y=2) %}{{ x ~ y }}{% endmacro %}{{ f(1) ~ f(x=3) }}", "1232"),
        ("{% macro f() %}<{{ caller(1) }}>{% endmacro %}{% call(a) f() %}{{ a }}{% endcall %}", "<1>"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x | upper }}{% filter upper %}b{% endfilter %}", "A1B"),
        ("  {%- with a = 1 %}{{ a }}{% endwith %}\n  {% if true %}\nx\n  {% endif %}\n", "1x\n"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}", "2"),
        ("{{ 'a,b'.split(',')[1] ~ 'abc'[::-1] ~ l[-1] ~ (l | join('+')) }}", "bcba21+2"),
        ("{{ l | map('string') | map('center', 3) | select | list }}", "[' 1 ', ' 2 ']"),
        ("{{ l | select('greaterthan', 1) | first }}{{ l | sum }}{{ l | max }}", "232"),
        ("{{ '%02d|%s' % (3, 'x') }}{{ '{}{:>3}{a}'.format(1, 2, a=l) }}", "03|x1  2[1, 2]"),
        ("{{ '%s-%s' | format(1, 2) }}{{ 'a' | indent(2, true) }}{{ 7 // 2 }}{{ 2 ** 3 }}", "1-2  a38"),
        ("{{ {'b': '<é>', 'a': none} | tojson }}", '{"b": "<é>", "a": null}'),
        ("{{ [l] | tojson(indent=1) }}", "[\n [\n  1,\n  2\n ]\n]"),
        ("{{ missing }}{{ missing | default('d') }}{{ missing is defined }}", "dFalse"),
        ("{{ strftime_now('%d %b %Y') }}{{ dict(a=1).a }}{{ 'x' * 3 }}", "(%d %b %Y)1xxx"),
        ("{{ (l + [3])[1:] | length }}{{ 1 in l }}{{ not l }}{{ 'b' if false }}", "2TrueFalse"),
        ("{{ 1.5 | round | int }}{{ [3, 1] | sort }}{{ 'a b' | title }}{{ 'a' is string }}", "2[1, 3]A BTrue"),
    ],
)  # fmt: skip
def test_what_chat_templates_use_works(source: str, expected: str) -> None:
    assert render(source, l=[1, 2]) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
        "{% for a in range(1000) %}{% for b in range(100000) if false %}{% endfor %}{% endfor %}",
        "{% set r = range(1000000) %}{% for a in r %}{{ r | select('string') | list }}{% endfor %}",
        "{% for m in l recursive %}{{ loop(l) }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% for i in range(9) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(22) }}",
        "{% for i in range(100000) %}" + "x" * 10_000 + "{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x in x }}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% set y = x[1:] %}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x | length }}{% endfor %}",
        "{% set x = ('a' * 1000000).split('a') %}{% for i in range(1000) %}{{ 1 in x }}{% endfor %}",
        "{% set x = 'a' * 900000 %}{% set y %}" + "{{ x }}" * 50 + "{% endset %}",
        GROW + "{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
        "{{ ns.x == ns.y }}",
        GROW + "{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
        GROW + "{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ l[ns.x] }}",
        GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson | length }}",
        GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ '%s' % ns.x }}",
        "{{ ('a' * 100000).strip('b' * 100000 ~ 'a') }}",
    ],
    ids=lambda source: source[-60:],
)
def test_no_template_goes_on_for_ever(source: str) -> None:
    with pytest.raises(ManifestError, match="asks for too much"):
        render(source, l=[1, 2])


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10 ** 9 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 1000000000 * (1,) }}",
        "{{ 9 ** 9999 }}",
        GROW + "{% set ns.n = (ns.n or 9) * (ns.n or 9) %}{% endfor %}",
        GROW + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        GROW + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        GROW + "{% set ns.x = ns.x.replace('a', 'aa') %}{% endfor %}",
        GROW + "{% set ns.x = ns.x | replace('', 'a') %}{% endfor %}",
        GROW + "{% set ns.x = ns.x.join([ns.x, ns.x, ns.x]) %}{% endfor %}",
        GROW + "{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
        GROW + "{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}",
        GROW + "{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}",
        GROW + "{% set ns.x = '%s%s' | format(ns.x, ns.x) %}{% endfor %}",
        GROW + "{% set ns.x = [ns.x, ns.x] | string %}{% endfor %}",
        GROW + "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}",
        "{% macro d(x) %}{{ x }}{{ x }}{% endmacro %}"
        + GROW
        + "{% set ns.x = d(ns.x) %}{% endfor %}",
        "{{ range(10 ** 9) | list }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x'.zfill(1000000000) }}",
        "{{ '\t'.expandtabs(1000000000) }}",
        "{{ 'x' | indent(1000000000, true) }}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{{ '%1000000000d' % 5 }}",
        "{{ '%*d' % (1000000000, 5) }}",
        "{{ '%1000000000d' | format(5) }}",
        "{{ '{:1000000000}'.format(5) }}",
        "{{ '{:{}}'.format(5, 1000000000) }}",
        "{{ '{0:.1000000000f}'.format(5) }}",
        "{{ 5 | round(-1000000000) }}",
        "{{ strftime_now('%1000000000d') }}",
        "{% filter center(1000000000) %}x{% endfilter %}",
        "{{ ('1' * 100000) | int(0, 16) }}",
    ],
    ids=lambda source: source[-60:],
)
def test_nothing_that_a_template_makes_grows_without_end(source: str) -> None:
    with pytest.raises(ManifestError, match="asks for too much"):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ l.append(1) }}",
        "{{ {}.fromkeys('ab') }}",
        "{{ 'a'.encode() }}",
        "{{ (5).to_bytes(1000000000, 'big') }}",
        "{{ 'a'.format_map({}) }}",
        "{{ raise_exception.__globals__['x'] }}",
        "{{ strftime_now.__self__.meter }}",
        "{{ strftime_now.__func__.x }}",
        "{{ '{0.__class__.__mro__}'.format(5) }}{{ ''.format.__self__.x }}",
        "{% set ns = namespace() %}{{ ns.__init__.x }}",
        "{{ l | attr('__class__') }}",
        "{{ l | map(attribute='__class__.__mro__') | list | tojson }}",
        "{% macro f() %}{% endmacro %}{{ f._func.x }}",
        "{{ self.x() }}",
        "{{ cycler('a') }}",
        "{{ lipsum(1000) }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% autoescape 'x' | center(1000000000) %}{% endautoescape %}",
        "{{ namespace }}",
        "{{ l | map('upper') }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ [ns] }}",
        "{{ [[1]] | sum(start=[]) }}",
    ],
)
def test_what_chat_templates_do_not_need_is_not_there(source: str) -> None:
    with pytest.raises(ManifestError, match="does not work"):
        render(source, l=[1, 2])


@pytest.mark.parametrize(
    "source",
    [
        "{{",
        "{% for %}",
        "{% break %}",
        "{{ 1 / 0 }}",
        "{{ f() }}",
        "{{ l.x.y }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "[" * 20_000,
        "{{ " + "not " * 15_000 + "1 }}",
        "{{ " + "+".join(["1"] * 20_000) + " }}",
        "{{ x" + ".a" * 20_000 + " }}",
        "{% if 1 %}" * 200 + "{% endif %}" * 200,
        "{% for i in l %}" * 50 + "{% endfor %}" * 50,
        "{{ " + "9" * 10_000 + " }}",
    ],
    ids=lambda source: source[:30],
)
def test_a_broken_template_says_so(source: str) -> None:
    with pytest.raises(ManifestError, match="Give a plain prompt instead"):
        render(source, l=[1, 2])


def test_what_the_template_says_of_the_messages_reaches_people() -> None:
    with pytest.raises(ConfigError, match="no system messages here") as caught:
        render("{{ raise_exception('no system messages here') }}")
    assert caught.value.data["setting"] == "messages"


def test_one_rendering_does_not_pay_for_another() -> None:
    template = BoundedTemplate("{% for i in range(50000) %}{% endfor %}{{ x }}")
    for number in range(5):
        assert template.render({"x": number}, now) == str(number)


def test_an_answer_that_is_too_long_is_refused_and_the_longest_is_not() -> None:
    assert len(render("{{ x }}", x="a" * MAX_TEXT)) == MAX_TEXT
    with pytest.raises(ManifestError, match="a text of"):
        render("{{ x }}b", x="a" * MAX_TEXT)


PIECES = (
    "{{ }} {% %} for i in range( ) ( [ ] 'a' 9 ** * + ~ | % . join replace list ns x , if endfor "
    "endif set = namespace( macro f( endmacro tojson format : - < == and not loop string is"
)


@given(source=st.lists(st.sampled_from(PIECES.split()), max_size=25).map(" ".join))
@example(source="{{ 'a' * 9 ** 9 }}")
@example(source="{% set x = 'a' %} {{ x . join ( x ) }}")
def test_any_text_is_a_template_or_an_error_of_ours(source: str) -> None:
    try:
        assert len(render(source, x=[1, "a"])) <= MAX_TEXT
    except KwaaiNetError as error:
        assert error.code in ("ConfigError", "ManifestError")  # noqa: PT017
