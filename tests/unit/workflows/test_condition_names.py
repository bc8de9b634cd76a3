"""Which names does a condition read, and is every text an expression or an error?"""

from __future__ import annotations

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.workflows.expression_names import paths


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("input.amount > 3", {("input", "amount")}),
        ("steps . a\n. result", {("steps", "a", "result")}),
        ("steps['a-b'].result.x", {("steps", "a-b", "result", "x")}),
        ("steps['\\u0061'].state", {("steps", "a", "state")}),
        ("'steps.a' == \"steps.b\"", set()),
        ("r'steps\\' == x", {("x",)}),
        ('"""a "steps.q" """ == b\'steps.r\'', set()),
        ("true // steps.a", set()),
        ("steps[input.which].state", {("steps",), ("input", "which")}),
        ("steps.map(name, name)", {("steps",)}),
        ("has(steps.a) && size(input.x) > 0", {("steps", "a"), ("input", "x")}),
        ("input.l.all(x, x.y == y)", {("input", "l"), ("y",)}),
        ("[[1]].all(x, x.all(y, y == 1)) && y", {("y",)}),
        ("input.size() > 1.5e3", {("input",)}),
        (".input.amount", {(".input", "amount")}),
        ("true ? .x : 1", {(".x",)}),
    ],
)
def test_the_paths_of_an_expression_are_its_free_names(
    expression: str, expected: set[tuple[str, ...]]
) -> None:
    """Literals, comments and macro variables do not count as names."""
    assert set(paths(expression)) == expected


_NAMES = st.sampled_from(["input", "steps", "x", "y", "rb", "b", "all"])
_ATOMS = st.one_of(
    _NAMES,
    st.integers(0, 99).map(str),
    st.sampled_from(["'steps.a'", 'r"\\"', "b'x'", "1.5", "0x1F", "true", "null", "'''it's'''"]),
)
_EXPRESSIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, _NAMES).map(lambda pair: f"({pair[0]}).{pair[1]}"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]})[{pair[1]}]"),
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]} == {pair[1]}"),
        st.tuples(inner, _NAMES, inner).map(lambda t: f"({t[0]}).exists({t[1]}, {t[2]})"),
        inner.map(lambda text: f"[{text}, {{'k': {text}}}]"),
        inner.map(lambda text: f"size({text})"),
    ),
    max_leaves=6,
)


@given(_EXPRESSIONS)
def test_the_free_names_are_those_that_cel_finds(expression: str) -> None:
    """Another parser lists the same names, plus those that macros bind."""
    free = {path[0] for path in paths(expression)}
    listed = set(cel.compile(expression).variables())
    assert free <= listed
    bound = {name for name in listed if f"exists({name}, " in expression}
    assert listed - free <= bound
