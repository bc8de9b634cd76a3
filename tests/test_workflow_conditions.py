"""What does a CEL condition promise, and which names does it read?"""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.core.exceptions import MultiAgentsError
from multiagents.orchestrator.conditions import (
    FUNCTIONS,
    ConditionError,
    check_syntax,
    compiled,
    compute,
    evaluate,
)
from multiagents.orchestrator.references import paths

VALUES: dict[str, Any] = {
    "input": {"amount": 5, "items": [{"q": 1}, {"q": 2}], "card": "4111", "a-b": None},
    "steps": {
        "charge": {"state": "succeeded", "result": {"fee": 1.5}},
        "ship-it": {"state": "skipped"},
    },
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("input.amount > 3", True),
        ("input.amount > 3.5 && steps.charge.result.fee < 2", True),
        ("steps['ship-it'].state == 'succeeded'", False),
        ("input.items.exists(item, item.q == 2)", True),
        ("input.items.all(steps, steps.q > 0)", True),
        ("has(input.voucher) || input['a-b'] == null", True),
        ("has(steps['ship-it'].result)", False),
        ("// small orders only\ninput.amount < 10", True),
    ],
)
def test_a_condition_is_read_from_input_and_steps(expression: str, expected: bool) -> None:
    """Conditions see the saga's input, and the state and result of steps."""
    assert evaluate(expression, VALUES) is expected


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("input.amout > 3", "missing key 'amout' in input"),
        ("steps.charge.result.tax > 0", "missing key 'tax' in steps.charge.result"),
        ("steps['ship-it'].result.id == 1", "the step is skipped and has none"),
        ("steps.pay.state == 'succeeded'", "missing key 'pay' in steps"),
        ("input.amount", "gives int, expected true or false"),
        ("'yes'", "gives str, expected true or false"),
        ("null", "gives NoneType, expected true or false"),
        ("input.card + 1 == 2", "Unsupported operation: string + int"),
        ("input.amount / 0 == 1", "division by zero"),
        ("input.items[7].q == 1", "index out of bounds"),
        ("9223372036854775807 + input.amount > 0", "arithmetic overflow"),
        ("input.amount >", "at character 15: Syntax error: it ends too early"),
        ("  ", "is empty"),
    ],
)
def test_a_condition_without_an_answer_says_why(expression: str, reason: str) -> None:
    """Nothing is truthy and nothing is guessed: the error names expression, step and reason."""
    with pytest.raises(ConditionError) as raised:
        evaluate(expression, VALUES, step="pay")
    assert reason in str(raised.value)
    assert "step 'pay': CEL " in str(raised.value)
    assert repr(expression) in str(raised.value)


def test_a_condition_error_does_not_show_the_data() -> None:
    """A key that is computed from data could be a secret, so it is not shown."""
    with pytest.raises(ConditionError) as raised:
        evaluate("input[input.card] == 1", VALUES)
    assert "4111" not in str(raised.value)


def test_a_condition_error_survives_pickling() -> None:
    """It crosses processes with all that it says."""
    error = ConditionError("input.x", "missing key 'x' in input", "pay")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, ConditionError)
    assert isinstance(copy, MultiAgentsError)
    assert (str(copy), copy.expression, copy.step) == (str(error), "input.x", "pay")


def test_an_argument_may_be_any_json() -> None:
    """What a plain task is called with comes out of the expression as it is."""
    assert compute("input.items.map(item, item.q)", VALUES) == [1, 2]
    assert compute("{'fee': steps.charge.result.fee, 'to': null}", VALUES) == {
        "fee": 1.5,
        "to": None,
    }


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("timestamp('2020-01-01T00:00:00Z')", "datetime"),
        ("[duration('1h')]", "timedelta"),
        ("{'a': b'x'}", "bytes"),
        ("{1: 2}", "a map with keys that are no strings"),
        ("1.0 / 0.0", "a number that is not finite"),
    ],
)
def test_an_argument_that_is_no_json_is_refused(expression: str, kind: str) -> None:
    """It could not travel to the task; the message names what it is."""
    with pytest.raises(ConditionError, match=f"gives {kind}, which is no JSON"):
        compute(expression, VALUES)


def test_an_unknown_function_is_found_without_evaluating() -> None:
    """CEL itself would only notice when the saga runs."""
    with pytest.raises(ConditionError, match="unknown function 'now'; known: bytes, contains"):
        check_syntax("input.amount > 1 || now() > 3")
    check_syntax("-input.amount < 1 && !(size(input.items) in [1, 2]) || input.card.matches('4')")


def test_every_known_function_exists() -> None:
    """The list of functions is CEL's own: each can be called on something."""
    times = "timestamp('2020-01-01T00:00:00Z')"
    calls = {
        **dict.fromkeys(("contains", "startsWith", "endsWith", "matches"), "'a'.{}('a')"),
        **dict.fromkeys(("size", "bytes", "type", "dyn"), "{}('a')"),
        **dict.fromkeys(("int", "uint", "double", "string"), "{}('1')"),
        "duration": "{}('1h')",
        "timestamp": "{}('2020-01-01T00:00:00Z')",
    }
    for function in FUNCTIONS:
        expression = calls.get(function, f"{times}.{{}}()").format(function)
        assert evaluate(f"dyn({expression}) != [0]", {}) is True


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
    """Literals, comments and the variables of macros never count as names."""
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
def test_the_free_names_are_among_those_that_cel_finds(expression: str) -> None:
    """The tokens agree with CEL's parser: what it lists in addition is bound by a macro."""
    free = {path[0] for path in paths(expression)}
    listed = set(compiled(expression).variables())
    assert free <= listed
    bound = {name for name in listed if f"exists({name}, " in expression}
    assert listed - free <= bound


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_a_condition_error(text: str) -> None:
    """No input of a definition file escapes as another exception."""
    try:
        check_syntax(text)
    except ConditionError:
        return
    paths(text)
