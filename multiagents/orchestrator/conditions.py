"""What does a condition say about these values?

Conditions (``when``, ``failed_when``) and the arguments of plain tasks are CEL expressions over
``input`` and ``steps``.  Evaluating one is pure: no I/O, no clock, and only the steps that the
expression names are handed to CEL, since that copies every value.

A condition is true or false, or it is an error: nothing is truthy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from multiagents.core.exceptions import MultiAgentsError
from multiagents.orchestrator.references import Path, paths

if TYPE_CHECKING:
    from cel import Program

FUNCTIONS = frozenset(
    {
        *("size", "contains", "startsWith", "endsWith", "matches"),
        *("int", "uint", "double", "string", "bytes", "type", "dyn", "timestamp", "duration"),
        *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
        *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
    }
)
"""What an expression can call, macros (has, all, exists, exists_one, map, filter) apart."""

_REFUSALS = (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)
"""What the CEL library raises for an expression that has no value."""


class ConditionError(MultiAgentsError):
    """A CEL expression that cannot be compiled, or has no usable value for a saga's data."""

    def __init__(self, expression: str, reason: str, step: str = "") -> None:
        super().__init__(expression, reason, step)
        self.expression = expression
        self.reason = reason
        self.step = step

    def __str__(self) -> str:
        place = f"step {self.step!r}: " if self.step else ""
        return f"{place}CEL {self.expression!r}: {self.reason}"


def evaluate(expression: str, values: Mapping[str, Any], *, step: str = "") -> bool:
    """Whether the condition holds for ``{"input": {…}, "steps": {NAME: {"result", "state"}}}``.

    Raises ConditionError when it cannot be told: a missing key, a wrong type, not a bool.
    """
    value = _value(expression, values, step)
    if isinstance(value, bool):
        return value
    raise ConditionError(
        expression,
        f"gives {type(value).__name__}, expected true or false; compare it with something",
        step,
    )


def compute(expression: str, values: Mapping[str, Any], *, step: str = "") -> Any:
    """The expression's value, JSON-safe: what a plain task gets as an argument.

    Raises ConditionError when there is none, or it is no JSON (bytes, a timestamp).
    """
    value = _value(expression, values, step)
    alien = _alien(value)
    if alien is None:
        return value
    raise ConditionError(expression, f"gives {alien}, which is no JSON; use string(…)", step)


def check_syntax(expression: str) -> None:
    """Raise ConditionError unless the expression compiles and calls only known functions."""
    unknown = [name for name in compiled(expression).functions() if _is_unknown(name)]
    if unknown:
        raise ConditionError(
            expression,
            f"unknown function {unknown[0]!r}; known: {', '.join(sorted(FUNCTIONS))}",
        )


def _is_unknown(function: str) -> bool:
    return function.isidentifier() and not function.startswith("_") and function not in FUNCTIONS


@lru_cache(maxsize=4096)
def compiled(expression: str) -> Program:
    """The compiled expression.  Raises ConditionError with the place of a syntax error."""
    from cel import compile as compile_cel  # 0.1 s: the package imports its own command line

    if not expression.strip():
        raise ConditionError(expression, "is empty; leave it out instead")
    try:
        return compile_cel(expression)
    except ValueError as error:
        raise ConditionError(expression, _syntax_error(str(error))) from error


def _syntax_error(message: str) -> str:
    match = re.search(r"<input>:(\d+):(\d+): ([^\n]*)", message)
    if match is None:
        return message.splitlines()[0]
    line, column, text = match.groups()
    place = f"character {column}" if line == "1" else f"line {line}, character {column}"
    text = text.split(" expecting ")[0].replace("mismatched input '<EOF>'", "it ends too early")
    return f"at {place}: {text.split('OtherError(')[0].strip()}"


def _value(expression: str, values: Mapping[str, Any], step: str) -> Any:
    try:
        return compiled(expression).execute(_needed(expression, values))
    except ConditionError as error:
        raise ConditionError(expression, error.reason, step) from error
    except _REFUSALS as error:
        raise ConditionError(expression, _reason(error, expression, values), step) from error


def _needed(expression: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the values that the expression names."""
    used = paths(expression)
    needed = {path[0]: values[path[0]] for path in used if path[0] in values}
    named = {path[1] for path in used if path[0] == "steps" and len(path) > 1}
    if "steps" in needed and ("steps",) not in used:
        steps = values["steps"]
        needed["steps"] = {name: steps[name] for name in named if name in steps}
    return needed


def _reason(error: Exception, expression: str, values: Mapping[str, Any]) -> str:
    """Why there is no value, in the user's words; never with the values themselves."""
    if isinstance(error, KeyError):
        return _missing(str(error.args[0]), expression, values)
    if isinstance(error, OverflowError):
        return "arithmetic overflow"
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]


def _missing(key: str, expression: str, values: Mapping[str, Any]) -> str:
    for path in paths(expression):
        owner = _owner_of_missing(path, values)
        if owner is not None and path[len(owner)] == key:
            return f"missing key {key!r} in {'.'.join(owner)}{_hint(owner, key, values)}"
    return "missing key (its name is computed, so it is not shown)"


def _owner_of_missing(path: Path, values: Mapping[str, Any]) -> Path | None:
    """The longest part of the path that exists; None if all of it does, or it is no mapping."""
    here: Any = values
    for index, name in enumerate(path):
        if not isinstance(here, Mapping):
            return None
        if name not in here:
            return path[:index]
        here = here[name]
    return None


def _hint(owner: Path, key: str, values: Mapping[str, Any]) -> str:
    if owner[:1] != ("steps",) or len(owner) != 2 or key != "result":
        return f"; guard it with has({'.'.join((*owner, key))})" if key.isidentifier() else ""
    state = values["steps"][owner[1]].get("state", "unknown")
    return f": the step is {state} and has none; guard it with has({'.'.join(owner)}.result)"


def _alien(value: Any) -> str | None:
    """The type of the first part that JSON does not have; None if there is none."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return "a map with keys that are no strings"
        return next(filter(None, map(_alien, value.values())), None)
    if isinstance(value, list):
        return next(filter(None, map(_alien, value)), None)
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is not finite"
    if value is None or isinstance(value, str | int | float):
        return None
    return type(value).__name__
