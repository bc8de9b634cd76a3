"""How does a language model do a step?

`@dspy_worker` makes a worker from a signature (the input and output fields) and a function around
it.  The worker is ``async`` and runs on the process's loop, so a timeout cancels it; a plain
function, like a plain tool, runs in a thread beside the loop.

The function runs before or after the model, by these rules:

1. The model's inputs are the context's values of the signature's input fields.
2. If the context has all of them, the model answers first.  The function then gets the context
   overlaid by the answer, and its result is merged over the answer.
3. If some are missing, the function runs first, with the context alone, and returns them.  Its
   other values are kept beside the answer.
4. ``function_first=True`` or ``False`` decides instead.  A function that changes an input of the
   context needs it; without it that is an error, never a silent loss.

An input field with a default may be missing.  `post_process`, if set, makes the final result.
"""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from multiagents.agents.lm import DEFAULT_TIMEOUT_S, language_model
from multiagents.agents.lm_errors import translated
from multiagents.agents.reasoning import Program, Reasoning, build_program, check_reasoning
from multiagents.agents.tools import Carried, Trace, invoke, trace
from multiagents.core.exceptions import InvalidInput, NonRetryableError
from multiagents.core.policies import RetryPolicy
from multiagents.worker_sdk.decorators import Retry, limits_of, refuse_worker
from multiagents.worker_sdk.registry import Worker, register
from multiagents.worker_sdk.signatures import OUTCOME, refuse_call

F = TypeVar("F", bound=Callable[..., Any])
Ask = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSettings:
    """How the model of a worker answers; `dspy_worker` describes each setting."""

    signature: Any
    reasoning: str = "predict"
    tools: Sequence[Any] = ()
    max_iters: int = 5
    model: str | None = None
    function_first: bool | None = None
    lm_settings: Mapping[str, Any] = field(default_factory=dict)

    def check(self, worker: str) -> Reasoning:
        """The way of reasoning.  Raises InvalidInput for settings that a worker cannot have."""
        reasoning = check_reasoning(worker, self.reasoning, self.tools, self.max_iters)
        _check_lm_settings(worker, self.lm_settings)
        return reasoning


class DSPyWorker(Worker):
    """A worker whose work is a model's answer.

    A call returns a coroutine that asks the model; ``plain`` is the function alone.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        settings: AnswerSettings,
        *,
        queue: str | None = None,
        retry: RetryPolicy | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.settings = settings
        self.reasoning = settings.check(name)
        self.plain = function
        self._finish: Callable[..., Any] | None = None
        self._program: Program | None = None
        super().__init__(
            self._thinking(), name, queue=queue, kind="llm", retry=retry, timeout_s=timeout_s
        )

    def post_process(self, function: F) -> F:
        """Set the plain or async function that makes the final result of every run.

        It gets the result so far and the context of the step, and returns a dict that replaces the
        result.  Raises InvalidInput for a function that takes fewer or more arguments.
        """
        whose = f"the post_process of worker {self.name!r}"
        refuse_call(function, whose, given=2, expected=OUTCOME)
        self._finish = function
        return function

    def check(self) -> None:
        """Read the signature and the tools now, not at the first run.  Imports dspy.

        Raises InvalidInput for a signature or a tool that cannot be read.
        """
        self._build()

    async def think(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's result for this context, by the rules at the top of this file.

        Raises WorkerExecutionError if another attempt may succeed, and NonRetryableError if it
        cannot: for a refused request, a missing input, or a function that returned no dict.
        """
        program, lm = await self._ready()
        seen = Trace()
        ask = functools.partial(self._asked, program, lm, seen)
        token = trace.set(seen)
        try:
            if self._stands_first(program, context):
                result = await self._function_first(program, ask, context)
            else:
                result = await self._model_first(program, ask, context)
            if self._finish is None:
                return result
            return await self._called(self._finish, result, context)
        finally:
            trace.reset(token)

    async def _ready(self) -> tuple[Program, Any]:
        """The program and its model.  Nothing is done before, so a failure here is clean."""
        program = self._program
        try:
            if program is None:
                program = await asyncio.to_thread(self._build)  # imports dspy: 1.4 s
        except InvalidInput as error:
            raise NonRetryableError(str(error), clean=True) from error
        limit_s = min(self.timeout_s or DEFAULT_TIMEOUT_S, DEFAULT_TIMEOUT_S)
        with _meaning(self.name, Trace()):
            model, lm_settings = self.settings.model, self.settings.lm_settings
            return program, language_model(model, lm_settings, timeout_s=limit_s)

    def _stands_first(self, program: Program, context: Mapping[str, Any]) -> bool:
        function_first = self.settings.function_first
        return bool(program.missing(context)) if function_first is None else function_first

    async def _function_first(
        self, program: Program, ask: Ask, context: Mapping[str, Any]
    ) -> dict[str, Any]:
        given = await self._called(self.plain, context)
        answer = await ask({**program.chosen(context), **program.chosen(given)})
        beside = {key: value for key, value in given.items() if key not in program.inputs}
        return {**beside, **answer}

    async def _model_first(
        self, program: Program, ask: Ask, context: Mapping[str, Any]
    ) -> dict[str, Any]:
        answer = await ask(program.chosen(context))
        overlaid = copy.copy(context)
        overlaid.update(answer)  # type: ignore[attr-defined]  # a Context, or the caller's dict
        more = await self._called(self.plain, overlaid)
        late = [name for name in program.inputs if name in more and more[name] != context.get(name)]
        if late:
            raise NonRetryableError(
                f"the function of worker {self.name!r} returned the input field {late[0]!r}, but"
                " the context had it already, so the model was asked before the function; set"
                " function_first=True to prepare the inputs, or return it under another name"
            )
        return {**answer, **more}

    async def _asked(
        self, program: Program, lm: Any, seen: Trace, inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        missing = program.missing(inputs)
        if missing:
            raise NonRetryableError(
                f"worker {self.name!r} lacks the input {_listed(missing)} of its signature:"
                " neither the context nor the function's result has it; put it into the saga's"
                " input, the result of an earlier step or the function's result",
                clean=not seen.effects,
            )
        with _meaning(self.name, seen):
            return await program.ask(lm, inputs)

    async def _called(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        returned = await invoke(function, *args)
        if returned is None:
            return {}
        if not isinstance(returned, Mapping):
            place = getattr(function, "__name__", type(function).__name__)
            raise NonRetryableError(
                f"{place!r} of worker {self.name!r} returned {type(returned).__name__};"
                " expected a dict"
            )
        return dict(returned)

    def _thinking(self) -> Callable[..., Any]:
        """The function that the engine runs: `think`, with the name and text of ``plain``."""

        @functools.wraps(self.plain)
        async def thinking(context: Mapping[str, Any]) -> dict[str, Any]:
            return await self.think(context)

        return thinking

    def _build(self) -> Program:
        self._program = build_program(
            self.name,
            self.settings.signature,
            reasoning=self.reasoning,
            tools=self.settings.tools,
            max_iters=self.settings.max_iters,
            names=getattr(self.plain, "__globals__", {}),
        )
        return self._program


def dspy_worker(
    name: str,
    *,
    signature: Any,
    reasoning: str = "predict",
    tools: Sequence[Any] = (),
    max_iters: int = 5,
    model: str | None = None,
    function_first: bool | None = None,
    queue: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    **lm_settings: Any,
) -> Callable[[Callable[..., Any]], DSPyWorker]:
    """Register a plain or async function as a worker whose work a language model does.

    ``signature`` is a dspy.Signature class or its short form ``"text -> mood: str, score: float"``
    (types may be classes of the function's module); it is read at the first run, or by `check`.
    ``reasoning``: see `Reasoning`; ``tools`` and ``max_iters`` are for ``"react"``.  ``model``:
    its name in DSPy, else ``MULTIAGENTS_LM``, else the model of `dspy.configure`.  Other settings
    go to dspy.LM: ``temperature=0.2, max_tokens=300, timeout=60`` (seconds for each request).  The
    rules at the top of this file say when the function runs; the queue is ``llm``.

    Raises InvalidInput for an unknown reasoning, for tools that it does not call, and for settings
    by which DSPy would retry or cache.
    """

    settings = AnswerSettings(
        signature=signature,
        reasoning=reasoning,
        tools=tuple(tools),
        max_iters=max_iters,
        model=model,
        function_first=function_first,
        lm_settings=lm_settings,
    )

    def decorate(function: Callable[..., Any]) -> DSPyWorker:
        refuse_worker(function)
        policy, limit_s = limits_of(function, retry=retry, timeout_s=timeout_s)
        made = DSPyWorker(function, name, settings, queue=queue, retry=policy, timeout_s=limit_s)
        register(made)
        return made

    return decorate


@contextmanager
def _meaning(worker: str, seen: Trace) -> Iterator[None]:
    """Translates DSPy's errors into errors of the saga; other errors pass unchanged."""
    try:
        yield
    except (Exception, Carried) as error:
        raised = translated(error, worker=worker, effects=seen.effects)
        if raised is error:
            raise
        raise raised from None


def _check_lm_settings(worker: str, settings: Mapping[str, Any]) -> None:
    for owned, instead in (("num_retries", "retry="), ("cache", "a cache of your own")):
        if settings.get(owned):
            raise InvalidInput(
                f"worker {worker!r} sets {owned}, which the engine keeps off so that an attempt is"
                f" one call; use {instead} instead"
            )


def _listed(names: Sequence[str]) -> str:
    fields = ", ".join(repr(name) for name in names)
    return f"field {fields}" if len(names) == 1 else f"fields {fields}"
