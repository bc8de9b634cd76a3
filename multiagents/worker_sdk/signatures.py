"""Can a function be called as a worker or a tool is called?

The check runs where the function is decorated, so that a wrong one fails at import and not in a
saga.  A wrapper of another library counts with its own parameters, since it may add arguments.
Wrappers of this package pass their arguments on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

from multiagents.core.exceptions import InvalidInput
from multiagents.core.places import defined, in_brackets, own

CONTEXT = "one parameter, the context, as in `def charge(context)`"
MODEL = "the input model, and the context if it wants that too: `def charge(order, context)`"
OUTCOME = "the result and the context, as in `def finish(result, context)`"
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def refuse_call(function: Callable[..., Any], what: str, *, given: int, expected: str) -> None:
    """Raise InvalidInput for a function that ``given`` positional arguments cannot call.

    ``what`` begins the message: ``worker 'charge'``.
    """
    called = _without_own_wrappers(function)
    signature = signature_of(called)
    if signature is None:
        return
    try:
        signature.bind(*[None] * given)
    except TypeError:
        wrong = _wrong(list(signature.parameters.values()), given)
        raise InvalidInput(
            f"{what}{in_brackets(defined(called))} {wrong}; expected {expected}"
        ) from None


def refuse_tool(function: Any, name: str, *, worker: str = "") -> None:
    """Raise InvalidInput for a function that a model cannot call by keywords for a value."""
    whose = f" of worker {worker!r}" if worker else ""
    if not callable(function):
        kind = type(function).__name__
        raise InvalidInput(f"a tool{whose} is {function!r}, a {kind}; expected a function")
    what = f"tool {name!r}{in_brackets(defined(function))}{whose}"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidInput(f"{what} is a generator (it has `yield`); expected one that returns")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise InvalidInput(
            f"{what} has no readable parameters; wrap it in a function with type hints"
        ) from None
    if worker and parameters and parameters[0].name == "self":  # unbound within its class
        raise InvalidInput(f"{what} is an unbound method; give a bound one: Shop().find")
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise InvalidInput(
                f"{what} has the positional-only parameter {parameter.name!r}, and a model names"
                " its arguments; take the `/` away"
            )


def positional(function: Callable[..., Any]) -> int:
    """The number of positional arguments that a function takes; 2 for any number.

    1 for a callable without readable parameters.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    return sum(parameter.kind in _POSITIONAL for parameter in parameters)


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """The parameters of the callable itself; None if they cannot be read."""
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None


def _without_own_wrappers(function: Any) -> Any:
    while (inner := getattr(function, "__wrapped__", None)) is not None:
        if not (inspect.isfunction(function) and own(function.__code__)):
            break
        function = inner
    return function


def _wrong(parameters: list[Parameter], given: int) -> str:
    needed = [each for each in parameters if each.default is each.empty]
    by_place = [each for each in needed if each.kind in _POSITIONAL]
    by_name = [each.name for each in needed if each.kind is each.KEYWORD_ONLY]
    takes = [each for each in parameters if each.kind in _POSITIONAL]
    if by_place and by_place[0].name == "self" and len(by_place) > given:
        return "is an unbound method (`self`): use a bound one, `shop.charge`"
    if len(by_place) > given:
        return f"needs {len(by_place)} arguments ({', '.join(each.name for each in by_place)})"
    if by_name:
        return f"needs the keyword argument {by_name[0]!r}, which the engine does not pass"
    if not takes:
        return f"takes {'keyword arguments only' if parameters else 'no parameter'}"
    return f"takes only {len(takes)}"
