"""Which worker functions does this process have?

A `Worker` is the user's function with the facts that the engine needs about it; a call of the
worker calls the function.  Names are unique in a process: of two functions with one name, chance
would decide which one moves the money.  Celery tasks are made elsewhere, through `on_register`.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel

from multiagents.core.exceptions import InvalidInput
from multiagents.core.names import QUEUE_IO, QUEUE_LLM, queue_flaw
from multiagents.core.places import defined, in_brackets
from multiagents.core.policies import RetryPolicy
from multiagents.core.ports import WorkerInfo
from multiagents.worker_sdk import signatures
from multiagents.worker_sdk.performance import Performance
from multiagents.worker_sdk.signatures import positional, refuse_call

WorkerKind = Literal["io", "cpu", "llm"]
KINDS: tuple[str, ...] = get_args(WorkerKind)
MAX_NAME = 128
"""Characters in a name, as for steps: it is part of keys and of Flower's columns."""
MAX_TIMEOUT_S = 31_536_000.0
"""A year, as for steps."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
OWN_PREFIXES = ("multiagents.", "celery.")


CPU_LEASE_S = 15.0
"""A function that computes may delay the process's heartbeat thread for seconds (E9)."""


class Worker:
    """A named function that does a step; calling it calls the function, with any arguments.

    ``queue`` None: see `home_queue`.  ``retry`` and ``timeout_s`` None: the step's own, then the
    defaults.  A call calls ``function``; decorators above ``@worker`` wrap it in place.
    """

    is_multiagents_worker: ClassVar[bool] = True

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        queue: str | None = None,
        kind: WorkerKind = "io",
        retry: RetryPolicy | None = None,
        timeout_s: float | None = None,
        input_model: type[BaseModel] | None = None,
        output_model: type[BaseModel] | None = None,
    ) -> None:
        _refuse_generator(function, name)
        _refuse_signature(function, name, has_model=input_model is not None)
        functools.update_wrapper(self, function)
        self.function = function
        self.name = _checked_name(name)
        self.queue = _checked_queue(queue, name)
        self.kind = _checked_kind(kind, name)
        self.retry = retry
        self.timeout_s = None if timeout_s is None else checked_timeout(timeout_s, f"{name!r}")
        self.input_model = _checked_model(input_model, f"input_model of {name!r}")
        self.output_model = _checked_model(output_model, f"output_model of {name!r}")
        self.performance: Performance | None = getattr(function, "performance", None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<worker {self.name!r}: {self.place}>"

    def __reduce__(self) -> str:
        return str(getattr(self, "__qualname__", self.name))  # pickled by name, like a function

    @property
    def worker_name(self) -> str:
        """The same as ``name``."""
        return self.name

    @property
    def is_async(self) -> bool:
        """Whether a call gives a coroutine."""
        return is_async(self.function)

    @property
    def home_queue(self) -> str:
        """The queue of its steps that name no queue."""
        return self.queue or (QUEUE_LLM if self.kind == "llm" else QUEUE_IO)

    @property
    def info(self) -> WorkerInfo:
        """The facts that the engine needs about it."""
        least_lease_s = CPU_LEASE_S if self.kind == "cpu" else 0.0
        return WorkerInfo(self.name, self.home_queue, self.timeout_s, self.retry, least_lease_s)

    @property
    def place(self) -> str:
        """The place of the function: ``shop.workers.charge``."""
        module, qualname = _origin(self)
        return f"{module}.{qualname}"

    @property
    def named_place(self) -> str:
        """The same with file and line: ``shop.workers.charge (shop/workers.py:12)``."""
        return f"{self.place}{in_brackets(defined(self.function))}"

    @functools.cached_property
    def takes_context(self) -> bool:
        """Whether a worker with an ``input_model`` also takes the context, as second argument."""
        return positional(self.function) >= 2


def _refuse_generator(function: Callable[..., Any], name: str) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidInput(
            f"worker {name!r}{in_brackets(defined(function))} is a generator (it has `yield`), so"
            " a call does nothing: return one dict instead, and report progress with"
            " context.heartbeat()"
        )


def _refuse_signature(function: Callable[..., Any], name: str, *, has_model: bool) -> None:
    given = 2 if has_model and positional(function) >= 2 else 1
    expected = signatures.MODEL if has_model else signatures.CONTEXT
    refuse_call(function, f"worker {name!r}", given=given, expected=expected)


class Registry:
    """Workers by name."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._callbacks: list[Callable[[Worker], None]] = []
        self._checks: list[Callable[[Worker], None]] = []

    def register(self, worker: Worker) -> Worker:
        """Add a worker; the same function once more (a reload) replaces itself.

        Raises InvalidInput, and changes nothing, if another function or a Celery task has the name.
        """
        known = self._workers.get(worker.name)
        if known is not None and not _same_origin(known, worker):
            raise InvalidInput(
                f"two functions are called worker {worker.name!r}: {known.named_place} and"
                f' {worker.named_place}; give one of them another name: @worker("...")'
            )
        for check in self._checks:
            check(worker)
        self._workers[worker.name] = worker
        for callback in self._callbacks:
            callback(worker)
        return worker

    def find(self, name: str) -> Worker | None:
        """The worker of that name, None if this process has none."""
        return self._workers.get(name)

    def workers(self) -> dict[str, Worker]:
        """All workers by name, in the order of their registration; a copy."""
        return dict(self._workers)

    def on_register(
        self, callback: Callable[[Worker], None], *, check: Callable[[Worker], None] | None = None
    ) -> None:
        """Call ``callback`` with each worker, registered before or later.

        ``check`` is called first, and refuses a worker by an exception.
        """
        if check is not None:
            for worker in list(self._workers.values()):
                check(worker)
            self._checks.append(check)
        self._callbacks.append(callback)
        for worker in list(self._workers.values()):
            callback(worker)


_registry = Registry()
register = _registry.register
find = _registry.find
workers = _registry.workers
on_register = _registry.on_register


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine; callable objects and partials included."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - its kind matters, not its presence
    )


def checked_timeout(seconds: object, of: str) -> float:
    """A timeout in seconds.  Raises InvalidInput for any other value; ``of`` names its owner."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 < seconds <= MAX_TIMEOUT_S:  # type: ignore[operator]  # a number here
        raise InvalidInput(
            f"timeout of {of} is {seconds!r}: expected seconds, above 0 and at most a year"
        )
    return float(seconds)  # type: ignore[arg-type]  # a number here


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise InvalidInput(
            f"a worker cannot be named {name!r}: expected a letter or '_', then letters, digits,"
            f" '_', '.' or '-', at most {MAX_NAME} characters"
        )
    if name.startswith(OWN_PREFIXES):
        raise InvalidInput(
            f"a worker cannot be named {name!r}: names that begin with"
            f" {' or '.join(map(repr, OWN_PREFIXES))} belong to the engine"
        )
    return name


def _checked_queue(queue: str | None, worker: str) -> str | None:
    if queue is not None and not (isinstance(queue, str) and _QUEUE.fullmatch(queue)):
        raise InvalidInput(
            f"queue of worker {worker!r} is {queue!r}: expected letters, digits, '_', '.', ':'"
            " or '-'"
        )
    if queue is not None and (flaw := queue_flaw(queue)):
        raise InvalidInput(f"queue of worker {worker!r} is {queue!r}: {flaw}")
    return queue


def _checked_kind(kind: WorkerKind, worker: str) -> WorkerKind:
    if kind not in KINDS:
        raise InvalidInput(
            f"kind of worker {worker!r} is {kind!r}: expected one of {', '.join(KINDS)}"
        )
    return kind


def _checked_model(model: type[BaseModel] | None, of: str) -> type[BaseModel] | None:
    if model is None or (isinstance(model, type) and issubclass(model, BaseModel)):
        return model
    raise InvalidInput(f"{of} is {model!r}: expected a class derived from pydantic.BaseModel")


def _origin(worker: Worker) -> tuple[str, str]:
    function = inspect.unwrap(worker.function)
    kind = type(function)
    return (
        getattr(function, "__module__", None) or kind.__module__,
        getattr(function, "__qualname__", None) or kind.__qualname__,
    )


def _same_origin(one: Worker, other: Worker) -> bool:
    """Whether two workers come from one place; ``python -m shop`` gives it a second module."""
    (module, qualname), (other_module, other_qualname) = _origin(one), _origin(other)
    if qualname != other_qualname:
        return False
    file = _file(one)
    return module == other_module or (file is not None and file == _file(other))


def _file(worker: Worker) -> str | None:
    code = getattr(inspect.unwrap(worker.function), "__code__", None)
    return None if code is None else str(code.co_filename)
