"""Does a condition hold for a saga's values?

Conditions (``when``, ``failed_when``) and the arguments of plain tasks are CEL expressions over
``input`` and ``steps``.  Evaluation is pure: no I/O, no clock, and a bounded number of
operations.

A condition gives true, false or an error: no other value counts as true.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from multiagents.core.exceptions import MultiAgentsError
from multiagents.core.states import StepState
from multiagents.workflows.cel.checks import DYN, TypeMistake, check
from multiagents.workflows.cel.evaluation import build
from multiagents.workflows.cel.refusals import NoValue
from multiagents.workflows.cel.scope import MOST_OPERATIONS, Run, Scope, TooCostly
from multiagents.workflows.cel.syntax import Node, parse
from multiagents.workflows.cel.tokens import CelSyntaxError
from multiagents.workflows.cel.values import CelType, Uint, article, kind_of

_NO_JSON = frozenset({"bytes", "timestamp", "duration"})


class ConditionError(MultiAgentsError):
    """A CEL expression that is invalid, or has no usable value for a saga's data."""

    def __init__(self, expression: str, reason: str, step: str = "") -> None:
        super().__init__(expression, reason, step)
        self.expression = expression
        self.reason = reason
        self.step = step

    def __str__(self) -> str:
        place = f"step {self.step!r}: " if self.step else ""
        return f"{place}CEL {_shown(self.expression)}: {self.reason}"


_MOST_SHOWN = 500


def _shown(expression: str) -> str:
    if len(expression) <= _MOST_SHOWN:
        return repr(expression)
    return f"{expression[:_MOST_SHOWN]!r}… ({len(expression):,} characters)"


def evaluate(expression: str, values: Mapping[str, Any], *, step: str = "") -> bool:
    """Whether the condition holds for ``{"input": {…}, "steps": {NAME: {"result", "state"}}}``.

    Raises ConditionError when there is no answer: a missing key, a wrong type, not a bool.
    """
    value = _value(expression, values, step)
    if isinstance(value, bool):
        return value
    raise ConditionError(expression, _no_bool(kind_of(value)), step)


def _no_bool(kind: str) -> str:
    return f"gives {article(kind)}, expected true or false; compare it with something"


def compute(expression: str, values: Mapping[str, Any], *, step: str = "") -> Any:
    """The expression's value, JSON-safe: an argument of a plain task.

    Raises ConditionError when there is none, or it is not JSON (bytes, a timestamp).
    """
    value = _value(expression, values, step, argument=True)
    try:
        return _json(value)
    except _NoJson as alien:
        raise ConditionError(expression, _no_json(str(alien)), step) from alien


def _no_json(what: str) -> str:
    return f"gives {what}, which is not JSON; use string(…)"


def check_syntax(expression: str) -> str:
    """Raise ConditionError unless the expression can have a value; return its kind or ``dyn``."""
    node = _parsed(expression)
    try:
        return check(node)
    except TypeMistake as error:
        raise ConditionError(expression, str(error)) from error


def check_condition(expression: str) -> None:
    """Raise ConditionError unless the expression can be true or false."""
    kind = check_syntax(expression)
    if kind not in {"bool", DYN}:
        raise ConditionError(expression, _no_bool(kind))


def check_argument(expression: str) -> None:
    """Raise ConditionError unless the expression can give an argument of a plain task."""
    kind = check_syntax(expression)
    if kind in _NO_JSON:
        raise ConditionError(expression, _no_json(article(kind)))


def _parsed(expression: str) -> Node:
    try:
        return parse(expression)
    except CelSyntaxError as error:
        raise ConditionError(expression, _placed(expression, error)) from error


def _placed(expression: str, error: CelSyntaxError) -> str:
    if error.place is None:
        return error.reason
    before = expression[: error.place]
    line, column = before.count("\n") + 1, error.place - before.rfind("\n")
    place = f"character {column}" if line == 1 else f"line {line}, character {column}"
    return f"at {place}: {error.reason}"


@lru_cache(maxsize=4096)
def _program(expression: str) -> Run:
    return build(_parsed(expression))


def _value(expression: str, values: Mapping[str, Any], step: str, *, argument: bool = False) -> Any:
    try:
        return _program(expression)(Scope(values))
    except ConditionError as error:
        raise ConditionError(expression, error.reason, step) from error
    except NoValue as error:
        reason = error.of_argument(expression) if argument else error.reason
        raise ConditionError(expression, reason, step) from error
    except TooCostly as error:
        reason = f"takes more than {MOST_OPERATIONS:,} operations; prepare the data in a step"
        raise ConditionError(expression, reason, step) from error
    except RecursionError as error:
        raise ConditionError(expression, "reads data that is nested too deep", step) from error


class _NoJson(ValueError):
    """A part that is not JSON; the message names its kind."""


def _json(value: Any) -> Any:
    """The value, with only Python's own types."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _NoJson("a map with keys that are not strings")
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise _NoJson("a number that is not finite")
    if isinstance(value, Uint):
        return int(value)
    if isinstance(value, CelType):
        return value.name
    kind = kind_of(value)
    if kind in _NO_JSON:
        raise _NoJson(article(kind))
    return value


States = Mapping[str, StepState]
"""The states of earlier steps that have no result."""


def as_seen(state: StepState, result: Any = None) -> dict[str, Any]:
    """One of ``steps``; a step that an operator resolved has an empty result."""
    if state is not StepState.SUCCEEDED:
        return {"state": state.value}
    return {"state": state.value, "result": {} if result is None else result}


def before(results: Mapping[str, Any], states: States) -> dict[str, Any]:
    """``steps``: the steps with a result, and those without."""
    done = {step: as_seen(StepState.SUCCEEDED, result) for step, result in results.items()}
    return {step: as_seen(state) for step, state in states.items()} | done
