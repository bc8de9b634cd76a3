"""Which limits bound a CEL expression's length, depth and cost?"""

from __future__ import annotations

import time
from typing import Any

import pytest

from multiagents.workflows.expressions import ConditionError, check_syntax, compute, evaluate

_VALUES: dict[str, Any] = {"input": {"amount": 5}, "steps": {}}

_DEEP = {
    "parentheses": "(" * 1000 + "true" + ")" * 1000,
    "many parentheses": "(" * 20_000 + "true" + ")" * 20_000,
    "nots": "!" * 9_000 + "true",
    "minuses": "-" * 9_000 + "1 > 0",
    "lists": "[" * 4_000 + "]" * 4_000 + " == []",
    "maps": "{'a': " * 900 + "1" + "}" * 900 + " == 1",
    "calls": "size(" * 900 + "1" + ")" * 900 + " == 1",
    "sums": "+".join(["1"] * 4_000) + " > 0",
    "choices": "true ? " * 1_000 + "true" + " : false" * 1_000,
    "choices at the end": "true ? true : " * 700 + "true",
    "members": "input" + ".a" * 4_900 + " == 1",
    "indexes": "input" + "[0]" * 3_000 + " == 1",
    "macros": "[1].all(x, " * 500 + "true" + ")" * 500,
    "long": "true || " * 2_000 + "true",
    "comparisons": "==".join(["true"] * 1_500),
}


@pytest.mark.parametrize("name", _DEEP)
def test_an_expression_beyond_the_limits_is_a_condition_error(name: str) -> None:
    """The build and the evaluation both refuse it, since older versions stored some.

    The check ends soon and leaves the process running.
    """
    began = time.process_time()
    with pytest.raises(ConditionError, match=r"nested deeper|nested operations|characters long"):
        check_syntax(_DEEP[name])
    with pytest.raises(
        ConditionError, match=r"'a'.*(nested deeper|nested operations|characters long)"
    ):
        evaluate(_DEEP[name], {"input": {}, "steps": {}}, step="a")
    assert time.process_time() - began < 1


def test_an_expression_within_the_limits_is_evaluated() -> None:
    """A long list of alternatives, deep brackets and a deep path are valid."""
    assert evaluate("||".join(["input.amount == 7"] * 400 + ["true"]), _VALUES) is True
    assert evaluate("(" * 49 + "true" + ")" * 49, _VALUES) is True
    assert compute("+".join(["1"] * 199), _VALUES) == 199


def test_macros_over_data_are_at_most_two_deep() -> None:
    """A third level makes the cost cubic; a nested path does not count."""
    check_syntax("input.a.all(x, input.b.exists(y, y == x))")
    check_syntax("input.a.all(x, x.b.all(y, y.c.all(z, z.d.all(w, w > 0))))")
    check_syntax("input.a.all(x, input.b.exists(y, [1, 2].exists(z, z == x + y)))")
    with pytest.raises(ConditionError, match="has 3 nested macros"):
        check_syntax("input.a.all(x, input.b.all(y, input.c.all(z, z == x + y)))")
    with pytest.raises(ConditionError, match="has 3 nested macros"):
        check_syntax("input.a.all(x, input.b.all(y, x.c.all(z, z == x + y)))")


@pytest.mark.parametrize(
    "expression",
    [
        "input.xs.all(x, input.xs.exists(y, y == x))",
        "input.xs.all(x, !((x + 1) in input.xs) || x >= 0)",
        "input.xs.all(x, input.xs == input.ys)",
        "input.xs.all(x, input.text.contains(string(x)) || true)",
        "input.texts.all(x, input.text.matches(x + '.*z') || true)",
        "input.texts.all(x, x.matches('\\\\w{400}') || true)",
        "input.texts.all(x, x.matches('(([a-z]{9}){9}){9}' + x) || true)",
        "input.xs.map(x, input.text + input.text).size() > 0",
        "[input.xs].all(a, [a + a].all(b, [b + b].all(c, [c + c].all(d, [d + d].all(e, [e + e]"
        ".all(f, [f + f].all(g, [g + g].all(h, [h + h].all(i, [i + i].all(j, true))))))))))",
    ],
)
def test_a_costly_condition_ends(expression: str) -> None:
    """It ends within about 1 s of pure Python; other threads run meanwhile, and nothing absorbs the
    error.
    """
    numbers = list(range(8_000))
    data = {"xs": numbers, "ys": list(numbers), "text": "a" * 200_000, "texts": ["b" * 50] * 2_000}
    began = time.process_time()
    with pytest.raises(ConditionError, match="takes more than 2,000,000 operations"):
        evaluate(f"{expression} || true", {"input": data})
    assert time.process_time() - began < 10


def test_the_largest_data_can_be_looked_at() -> None:
    """A condition can visit each element of a result of 1 MB."""
    data = {"xs": [1] * 500_000}
    assert evaluate("input.xs.all(x, x > 0)", {"input": data}) is True
