"""When are calls to a failing service refused?

A circuit has three states, which all processes share (see `storage.breaker`):

- closed: calls go through and are counted.
- open: calls are refused before they are made.
- half-open: one call goes through as a probe.  Its success closes the circuit, its failure opens it
  again.

Rules:

- A guard must never be an outage itself: when Redis does not answer, the call is made.
- Outside an engine (`connect` was not called) the function is the plain function.
- A NonRetryableError is an answer of the service, not a failure: "card declined" opens nothing.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, TypeVar, overload

from multiagents.core.clock import Clock, SystemClock
from multiagents.core.exceptions import CircuitBreakerOpenError, InvalidInput, NonRetryableError
from multiagents.core.ids import nonce
from multiagents.storage import breaker as store
from multiagents.storage.breaker import Limits, Permit
from multiagents.storage.calls import Call
from multiagents.worker_sdk.decorators import wrap
from multiagents.worker_sdk.registry import Worker, is_async
from multiagents.worker_sdk.validation import redact

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
RunCall = Callable[[Call[Any]], Any]

MIN_CALLS = 10
"""Fewer calls than this prove little about a service."""
OPEN_S = 60.0
WINDOW_S = 60.0
_GO = Permit(allowed=True)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Connection:
    run_call: RunCall
    clock: Clock
    errors: tuple[type[Exception], ...]


_connection: _Connection | None = None
"""Of the process: a guard exists before any app does, and its function may be called anywhere."""


def connect(run_call: RunCall, clock: Clock | None = None, *, replaces: bool = True) -> None:
    """Make the breakers of this process share their state through ``run_call`` (thread-safe).

    ``replaces`` False: only if they are not connected yet.
    """
    from multiagents.storage.client import StoreError  # loads redis, which the caller has anyway

    global _connection
    if _connection is not None and not replaces:
        return
    # InvalidInput: an app that hosts sagas has no server for them, in its unit tests for example.
    errors = (StoreError, OSError, InvalidInput)
    _connection = _Connection(run_call, clock or SystemClock(), errors)


def disconnect() -> None:
    """Make every guarded function the plain function again."""
    global _connection
    _connection = None


@overload
def circuit_breaker(failure_threshold: F) -> F: ...
@overload
def circuit_breaker(
    failure_threshold: float = 0.5,
    timeout_s: float | None = None,
    fallback: Any = None,
    *,
    timeout_seconds: float | None = None,
    min_calls: int = MIN_CALLS,
    window_s: float = WINDOW_S,
    name: str | None = None,
) -> Callable[[F], F]: ...
def circuit_breaker(
    failure_threshold: Any = 0.5,
    timeout_s: float | None = None,
    fallback: Any = None,
    *,
    timeout_seconds: float | None = None,
    min_calls: int = MIN_CALLS,
    window_s: float = WINDOW_S,
    name: str | None = None,
) -> Any:
    """Refuse calls of a function for ``timeout_s`` when too many recent ones failed.

    ``timeout_seconds`` is another name of ``timeout_s``, 60 by default.

    The circuit opens when the share ``failure_threshold`` (above 0 to 1) of at least ``min_calls``
    calls within ``window_s`` has failed.  Refused calls return ``fallback`` (a value, or a function
    of the same arguments) or raise CircuitBreakerOpenError; its ``retry_after`` is the seconds to
    the next probe.  Guards with the same ``name`` share a circuit.  By default it is the worker's
    name (above ``@worker``) or the function's place.  Raises InvalidInput for bad limits.
    """
    if callable(failure_threshold):
        return circuit_breaker()(failure_threshold)
    open_s = _one_of(timeout_s, timeout_seconds)
    limits = _limits(failure_threshold, open_s, min_calls=min_calls, window_s=window_s)

    def decorate(target: F) -> F:
        guard = _Guard(name or _default_name(target), limits, fallback)
        return wrap(target, guard.around)

    return decorate


class CircuitBreaker:
    """The circuit of one service, for calls through an object.

        provider = CircuitBreaker(failure_threshold=0.5, timeout_seconds=60, name="provider")
        rates = await provider.call(fetch_rates, "EUR")

    It opens, and uses ``fallback``, like `circuit_breaker`.  Breakers with the same ``name`` share
    a circuit.  By default it is the place in the code that makes the breaker, so all breakers of
    one line share one.  Raises InvalidInput for bad limits.
    """

    def __init__(
        self,
        failure_threshold: float = 0.5,
        timeout_seconds: float = OPEN_S,
        fallback: Any = None,
        *,
        min_calls: int = MIN_CALLS,
        window_s: float = WINDOW_S,
        name: str | None = None,
    ) -> None:
        limits = _limits(
            failure_threshold,
            timeout_seconds,
            min_calls=min_calls,
            window_s=window_s,
            timeout_name="timeout_seconds",
        )
        self.failure_threshold = failure_threshold
        self.timeout_seconds = timeout_seconds
        self.name = name or _place(self, sys._getframe(1))
        self._guard = _Guard(self.name, limits, fallback)

    async def call(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The result of ``func`` for these arguments; a plain function runs in a thread.

        Raises the function's error, and CircuitBreakerOpenError while the circuit is open.
        """
        return await self._guard.around_async(partial(_call, func))(*args, **kwargs)


async def _call(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    if is_async(func):
        return await func(*args, **kwargs)
    result = await asyncio.to_thread(func, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


@dataclass(frozen=True, slots=True)
class _Guard:
    name: str
    limits: Limits
    fallback: Any

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.around_async(function) if is_async(function) else self._around_plain(function)

    def _around_plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            permit = self._permit()
            if not permit.allowed:
                return self._refuse(permit, args, kwargs)
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                self._report(permit, ok=isinstance(error, NonRetryableError))
                raise
            self._report(permit, ok=True)
            return result

        return guarded

    def around_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # The calls to Redis run in a thread, because all async workers share the loop.
        @functools.wraps(function)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            permit = _GO if _connection is None else await asyncio.to_thread(self._permit)
            if not permit.allowed:
                instead = self._refuse(permit, args, kwargs)
                return await instead if inspect.isawaitable(instead) else instead
            try:
                result = await function(*args, **kwargs)
            except (Exception, asyncio.CancelledError) as error:  # a cancellation means a timeout
                await self._report_async(permit, ok=isinstance(error, NonRetryableError))
                raise
            await self._report_async(permit, ok=True)
            return result

        return guarded

    def _permit(self) -> Permit:
        connection = _connection
        if connection is None:
            return _GO
        now_ms = connection.clock.now_ms()
        call = store.ask(self.name, self.limits, now_ms=now_ms, nonce=nonce())
        return self._run(connection, call, otherwise=_GO)

    def _report(self, permit: Permit, *, ok: bool) -> None:
        connection = _connection
        if connection is None:
            return
        now_ms = connection.clock.now_ms()
        call = store.tell(self.name, self.limits, now_ms=now_ms, ok=ok, probe=permit.probe)
        self._run(connection, call, otherwise="")

    async def _report_async(self, permit: Permit, *, ok: bool) -> None:
        if _connection is not None:
            await asyncio.to_thread(self._report, permit, ok=ok)

    def _run(self, connection: _Connection, call: Call[T], *, otherwise: T) -> T:
        try:
            answer: T = connection.run_call(call)
        except connection.errors as error:
            logger.warning(
                "circuit breaker %r could not reach its store, the call goes on: %s: %s",
                self.name,
                type(error).__name__,
                redact(str(error)),
            )
            return otherwise
        return answer

    def _refuse(self, permit: Permit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if callable(self.fallback):
            return self.fallback(*args, **kwargs)
        if self.fallback is not None:
            return copy.deepcopy(self.fallback)
        wait_s = permit.wait_ms / 1000
        raise CircuitBreakerOpenError(
            f"circuit {self.name!r} is open: the call was refused before it was made; the next"
            f" one may go in {wait_s:.1f} s",
            retry_after=wait_s,
        )


def _default_name(target: Callable[..., Any]) -> str:
    if isinstance(target, Worker):
        return target.name
    return f"{target.__module__}.{target.__qualname__}"


def _place(made: CircuitBreaker, frame: FrameType) -> str:
    """The line that makes it, the same in every process; lines of a subclass do not count."""
    while frame.f_back is not None and frame.f_locals.get("self") is made:
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '')}:{frame.f_lineno}"


def _one_of(timeout_s: float | None, timeout_seconds: float | None) -> float:
    if timeout_s is not None and timeout_seconds is not None:
        raise InvalidInput(
            f"bad circuit breaker: timeout_s={timeout_s!r} and timeout_seconds={timeout_seconds!r}"
            " are one setting: expected one of them"
        )
    found = timeout_seconds if timeout_s is None else timeout_s
    return OPEN_S if found is None else found


def _limits(
    failure_threshold: float,
    timeout_s: float,
    *,
    min_calls: int,
    window_s: float,
    timeout_name: str = "timeout_s",
) -> Limits:
    found = [
        (f"failure_threshold={failure_threshold!r}", 0 < failure_threshold <= 1, "above 0 to 1"),
        (f"{timeout_name}={timeout_s!r}", timeout_s >= 0.001, "seconds, at least 0.001"),
        (f"window_s={window_s!r}", window_s >= 0.1, "seconds, at least 0.1"),
        (f"min_calls={min_calls!r}", min_calls >= 1, "at least 1"),
    ]
    wrong = [f"{given}: expected {expected}" for given, fits, expected in found if not fits]
    if wrong:
        raise InvalidInput(f"bad circuit breaker: {'; '.join(wrong)}")
    return Limits(
        float(failure_threshold), min_calls, round(window_s * 1000), round(timeout_s * 1000)
    )
