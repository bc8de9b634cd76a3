"""How does a worker with a language model reason?

A `Program` is one DSPy module of a signature, a way of reasoning and its tools.  It takes a dict
of inputs and returns a JSON-safe dict of outputs.  It is independent of contexts, models and sagas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic_core import to_jsonable_python

from multiagents.agents.lm import load_dspy
from multiagents.agents.tools import FINISH, bind, check_tools, observed, tool_name
from multiagents.core.exceptions import InvalidInput


class Reasoning(StrEnum):
    """The known ways of reasoning."""

    PREDICT = "predict"
    """One request, one answer."""
    CHAIN_OF_THOUGHT = "chain_of_thought"
    """One request; the answer starts with its ``reasoning``, which is part of the result."""
    REACT = "react"
    """Reasoning and tool calls in turn, at most ``max_iters`` times, then the answer."""


TAKEN = frozenset({"signature", "demos", "config", "lm", "prediction", "new_signature"})
"""DSPy's own arguments of a call; an input of such a name would change the call, not the prompt."""
TAKEN_BY_REACT = frozenset({"trajectory", "max_iters"})


@dataclass(frozen=True)
class Program:
    """A DSPy module with the names of its inputs and outputs."""

    module: Any
    inputs: tuple[str, ...]
    required: tuple[str, ...]
    """The inputs without a default."""
    outputs: tuple[str, ...]
    adapter: Any

    def missing(self, values: Mapping[str, Any]) -> list[str]:
        """The required inputs that the values lack, in the signature's order."""
        return [name for name in self.required if name not in values]

    def chosen(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that are inputs."""
        return {name: values[name] for name in self.inputs if name in values}

    async def ask(self, lm: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The model's answer, JSON-safe.  Raises DSPy's errors as they are."""
        context = load_dspy().context
        with context(lm=lm, adapter=self.adapter, **_NOTHING_KEPT):
            answer = await self.module.acall(**inputs)
        values = answer.toDict()
        return {name: to_jsonable_python(values[name]) for name in self.outputs}


_NOTHING_KEPT = MappingProxyType(
    {"trace": None, "disable_history": True, "track_usage": False, "warn_on_type_mismatch": False}
)
"""Histories and traces grow for as long as a worker lives, and a type warning logs the value."""


def check_reasoning(worker: str, reasoning: str, tools: Sequence[Any], max_iters: int) -> Reasoning:
    """The way of reasoning.  Raises InvalidInput if it is unknown or does not fit the tools."""
    if reasoning not in list(Reasoning):
        known = ", ".join(Reasoning)
        raise InvalidInput(
            f"worker {worker!r} has the unknown reasoning {reasoning!r}; expected one of: {known}"
        )
    if tools and reasoning != Reasoning.REACT:
        raise InvalidInput(
            f'worker {worker!r} has tools but reasoning "{reasoning}" calls none; set'
            ' reasoning="react" or drop the tools'
        )
    check_tools(worker, tools)
    names = [tool_name(tool) for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1 or name == FINISH})
    if twice:
        raise InvalidInput(
            f"worker {worker!r} has tools of one name: {', '.join(twice)} ({FINISH!r} is reserved);"
            ' give one another name with @tool("name")'
        )
    if max_iters < 1:
        raise InvalidInput(f"worker {worker!r} has max_iters={max_iters}; expected at least 1")
    return Reasoning(reasoning)


def build_program(
    worker: str,
    signature: Any,
    *,
    reasoning: Reasoning,
    tools: Sequence[Any] = (),
    max_iters: int = 5,
    names: Mapping[str, Any] = MappingProxyType({}),
) -> Program:
    """The program of a worker; ``names``: the types that a signature's text may use.

    Raises InvalidInput for a signature that cannot be read or that uses a reserved name of DSPy.
    """
    asked = _signature(worker, signature, names)
    taken = TAKEN | TAKEN_BY_REACT if reasoning is Reasoning.REACT else TAKEN
    clash = sorted(taken & set(asked.input_fields))
    if clash:
        raise InvalidInput(
            f"worker {worker!r} has the input field {clash[0]!r}, a name that DSPy keeps for"
            " itself; rename the field"
        )
    outputs = tuple(asked.output_fields)
    if reasoning is Reasoning.CHAIN_OF_THOUGHT:
        outputs = tuple(dict.fromkeys(("reasoning", *outputs)))
    return Program(
        module=_MODULES[reasoning](asked, [bind(tool, worker=worker) for tool in tools], max_iters),
        inputs=tuple(asked.input_fields),
        required=tuple(name for name, info in asked.input_fields.items() if info.is_required()),
        outputs=outputs,
        adapter=_adapter(reasoning),
    )


def _signature(worker: str, signature: Any, names: Mapping[str, Any]) -> Any:
    dspy = load_dspy()
    if isinstance(signature, type) and issubclass(signature, dspy.Signature):
        return signature
    if not isinstance(signature, str):
        raise InvalidInput(
            f"worker {worker!r} has the signature {signature!r}; expected a dspy.Signature class or"
            ' its short form "text -> sentiment: str"'
        )
    types = {name: value for name, value in names.items() if isinstance(value, type)}
    try:
        return dspy.Signature(signature, custom_types=types)
    except (ValueError, SyntaxError) as error:
        raise InvalidInput(
            f"worker {worker!r} has the signature {signature!r}, which cannot be read: {error};"
            ' expected a form such as "text -> sentiment: str, score: float"'
        ) from error


def _predict(signature: Any, tools: Sequence[Any], max_iters: int) -> Any:
    return load_dspy().Predict(signature)


def _chain_of_thought(signature: Any, tools: Sequence[Any], max_iters: int) -> Any:
    return load_dspy().ChainOfThought(signature)


def _react(signature: Any, tools: Sequence[Any], max_iters: int) -> Any:
    module = load_dspy().ReAct(signature, tools=tools, max_iters=max_iters)
    # a wrong argument of ``finish`` is an observation too, without a traceback
    module.tools[FINISH] = observed(module.tools[FINISH])
    return module


_MODULES: dict[Reasoning, Callable[[Any, Sequence[Any], int], Any]] = {
    Reasoning.PREDICT: _predict,
    Reasoning.CHAIN_OF_THOUGHT: _chain_of_thought,
    Reasoning.REACT: _react,
}


def _adapter(reasoning: Reasoning) -> Any:
    """The adapter, which asks again in JSON after an unparsable answer only in a ReAct loop.

    Elsewhere the engine's retry does the same, visibly and with a back-off.  A retry of a loop
    would call the tools again, which is worse than one more request.
    """
    return load_dspy().ChatAdapter(use_json_adapter_fallback=reasoning is Reasoning.REACT)
