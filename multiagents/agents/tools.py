"""Which functions may a model call, and what does it get back?

A tool is a plain or ``async def`` function with type hints and a docstring; the model sees both.
A bound method, a `functools.partial` and an object with ``__call__`` are tools, too.  A ReAct loop
gives every ``Exception`` to the model, so its calls of tools have three rules:

- an error that must end the step (a time limit, Celery's Ignore, a lost lease) leaves the loop as
  a ``BaseException`` and is raised again outside;
- any other error is an observation for the model: its type and message, no traceback, no paths;
- a plain function runs in a thread beside the loop, an async one on the process's loop.

dspy is imported only when a tool is bound to a program.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from multiagents.agents.lm import without_secrets
from multiagents.core.exceptions import InvalidInput, LeaseLost, StepTimeout
from multiagents.core.places import defined, in_brackets
from multiagents.core.texts import joined
from multiagents.worker_sdk.control import SoftTimeLimitExceeded, TaskPredicate
from multiagents.worker_sdk.signatures import refuse_tool

CONTROL: tuple[type[Exception], ...] = (
    SoftTimeLimitExceeded,
    TaskPredicate,  # Celery's Ignore, Reject and Retry
    StepTimeout,
    LeaseLost,
)
"""Exceptions that concern the step, not only the call that raised them."""
THREADS = 64
"""How many plain tools and worker functions run at once in one process; the others wait."""
OBSERVATION_CHARS = 500
"""The longest error message in an observation, which every later prompt of the loop repeats."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
FINISH = "finish"
"""The tool that dspy.ReAct adds to end its loop."""

F = TypeVar("F", bound=Callable[..., Any])


class Carried(BaseException):
    """Carries a control exception past every ``except Exception`` of the loop."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


@dataclass
class Trace:
    """The progress of one run of a worker; ``effects``: code of the user was entered."""

    effects: bool = False


trace: contextvars.ContextVar[Trace | None] = contextvars.ContextVar("trace", default=None)


@overload
def tool(name: F) -> F: ...
@overload
def tool(name: str | None = None) -> Callable[[F], F]: ...
def tool(name: Any = None) -> Any:
    """The function unchanged, with the tool name ``name`` (by default its own name).

    For a callable that takes no attributes, such as a bound method, a `functools.partial` of it.
    Raises InvalidInput for a name that model providers refuse, for ``finish``, which ends a loop,
    and for a function that no model can call.
    """
    if callable(name):
        return _named(name, tool_name(name))
    if name is not None and not isinstance(name, str):
        raise InvalidInput(f'a tool cannot be called {name!r}: expected text, as in @tool("find")')
    return lambda function: _named(function, name or tool_name(function))


def tool_name(function: Any) -> str:
    """The name by which a model calls this function (or dspy.Tool)."""
    name = getattr(function, "tool_name", None) or getattr(function, "name", None)
    if name is None and isinstance(function, functools.partial):
        return tool_name(function.func)
    return str(name or getattr(function, "__name__", type(function).__name__))


def bind(function: Any, *, worker: str) -> Any:
    """The function (or dspy.Tool) as a dspy.Tool that keeps this file's rules.

    Raises InvalidInput with the tool and its place if DSPy cannot use it.
    """
    try:
        return _bound(function)
    except Exception as error:
        what = f"worker {worker!r} cannot give its model the tool {tool_name(function)!r}"
        why = f"{what}{_place(function)}: {type(error).__name__}: {error}"
        expected = "expected a function with type hints that can be read where it is defined"
        raise InvalidInput(joined(why, expected)) from error


def _bound(function: Any) -> Any:
    made = _tool_class()
    if isinstance(function, made.__base__):
        given = {"desc": function.desc, "args": function.args, "arg_types": function.arg_types}
        return made(_carrying(function.func), name=tool_name(function), **given)
    return made(_described(function), name=tool_name(function))


def _described(function: Any) -> Any:
    """A plain function with the parameters, hints and text of any callable, for DSPy."""
    if not callable(function):
        raise TypeError(f"a {type(function).__name__} cannot be called")
    code = _code_of(function)
    hints = typing.get_type_hints(code, include_extras=True)
    signature = inspect.signature(function)
    call: Any = _carrying(function)
    call.__dict__.pop("__wrapped__", None)  # its hints would be read again, by other names
    call.__name__ = tool_name(function)
    call.__doc__ = inspect.getdoc(code) or inspect.getdoc(type(function))
    call.__annotations__ = {name: hints.get(name, Any) for name in signature.parameters}
    call.__signature__ = signature
    return call


def _code_of(function: Any) -> Any:
    """The function or method behind a callable."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else function.__call__


def _place(function: Any) -> str:
    """The file and line of a tool in brackets; its type if they are unknown."""
    place = defined(getattr(function, "func", function))
    if place is None:
        return f" (a {type(function).__module__}.{type(function).__qualname__})"
    return in_brackets(place)


def check_tools(worker: str, tools: Sequence[Any]) -> None:
    """Raise InvalidInput for a tool that no model can call; this check does without DSPy.

    Names in type hints may be defined later, so they are read when the tools are bound.
    """
    for tool in tools:
        if not _is_made(tool):
            refuse_tool(tool, tool_name(tool), worker=worker)


def _is_made(tool: Any) -> bool:
    """Whether it is a dspy.Tool, which has its own parameters."""
    dspy = sys.modules.get("dspy")
    return dspy is not None and isinstance(tool, dspy.Tool)


def observed(tool: Any) -> Any:
    """DSPy's own tool, so that its errors are observations without a traceback."""
    return _tool_class()(tool.func, name=tool.name, desc=tool.desc, args=tool.args)


async def invoke(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function's result: awaited on this loop if it is async, else from a thread."""
    seen = trace.get()
    if seen is not None:
        seen.effects = True
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    result = await asyncio.get_running_loop().run_in_executor(_threads(), call)
    return await result if inspect.isawaitable(result) else result


def observation(name: str, error: Exception) -> str:
    """The observation of a failed call, for the model."""
    message = without_secrets(" ".join(str(error).split()))[:OBSERVATION_CHARS]
    return f"Execution error in {name}: {type(error).__name__}: {message}"


def _named(function: F, name: str) -> F:
    refuse_tool(function, name)
    if not _NAME.fullmatch(name) or name == FINISH:
        raise InvalidInput(
            f"a tool{_place(function)} cannot be called {name!r}: expected letters, digits, '_' or"
            f" '-' (at most 64,"
            f' no digit first) and not {FINISH!r}; give another with @tool("name")'
        )
    named: Any = function
    try:
        named.tool_name = name
    except AttributeError:  # a bound method, a builtin, an object with slots
        named = functools.partial(function)
        named.tool_name = name
    return named  # type: ignore[no-any-return]  # it is called alike


def _carrying(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await invoke(function, *args, **kwargs)
        except CONTROL as error:
            raise Carried(error) from error

    return call


@functools.cache
def _tool_class() -> Any:
    import dspy

    class ObservedTool(dspy.Tool):  # type: ignore[misc]  # dspy has no types
        async def acall(self, **kwargs: Any) -> Any:
            try:
                return await super().acall(**kwargs)
            except Exception as error:  # noqa: BLE001 - an observation for the model, by contract
                return observation(self.name, error)

    return ObservedTool


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="multiagents-llm")


os.register_at_fork(after_in_child=_threads.cache_clear)
