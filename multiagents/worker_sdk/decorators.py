"""How does a function become a worker?

``@worker`` makes a `Worker` and registers it.  ``@retry`` and ``@timeout`` may stand below it (they
mark the function, which stays a plain function) or above it (they change the worker).  If two of
them set the same thing, the outer one wins.  Nothing is enforced here: the engine reads the marks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ValidationError

from multiagents.core.error_names import read_policy
from multiagents.core.exceptions import InvalidInput
from multiagents.core.policies import ERROR_KEYS, RetryPolicy
from multiagents.worker_sdk.performance import monitored
from multiagents.worker_sdk.registry import Worker, WorkerKind, checked_timeout, register
from multiagents.worker_sdk.validation import explain

F = TypeVar("F", bound=Callable[..., Any])
Retry = RetryPolicy | Mapping[str, Any] | int
Errors = type[Exception] | str | Sequence[type[Exception] | str] | Set[type[Exception] | str]
"""Classes of errors, or their names; a single one stands for a list of one."""

RETRY_MARK = "multiagents_retry"
TIMEOUT_MARK = "multiagents_timeout_s"
"""The attributes that hold the marks of a function before it is a worker."""


@overload
def worker(name: Callable[..., Any]) -> Worker: ...
@overload
def worker(
    name: str | None = None,
    *,
    queue: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    kind: WorkerKind = "io",
    input_model: type[BaseModel] | None = None,
    output_model: type[BaseModel] | None = None,
) -> Callable[[Callable[..., Any]], Worker]: ...
def worker(
    name: Any = None,
    *,
    queue: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    kind: WorkerKind = "io",
    input_model: type[BaseModel] | None = None,
    output_model: type[BaseModel] | None = None,
) -> Any:
    """Register a plain or ``async def`` function as the worker ``name`` (by default its own name).

    The function takes the `Context` and returns a dict of JSON values (or None for ``{}``).  With
    ``input_model`` it takes the validated model, and the context as second argument if it has
    one.  ``retry``: a policy, its fields as a dict, or just the number of attempts.  Raises
    InvalidInput, with the function's place, for a function with other parameters, and for a bad
    name, queue, policy or timeout.

        @worker("charge_card", retry=5, timeout_s=30)
        async def charge(context): ...
    """

    def decorate(function: Callable[..., Any]) -> Worker:
        refuse_worker(function)
        given = name if isinstance(name, str) else None
        policy, limit_s = limits_of(function, retry=retry, timeout_s=timeout_s)
        made = Worker(
            function,
            _default_name(function) if given is None else given,
            queue=queue,
            kind=kind,
            retry=policy,
            timeout_s=limit_s,
            input_model=input_model,
            output_model=output_model,
        )
        return register(made)

    if name is None or isinstance(name, str):
        return decorate
    if callable(name):
        return decorate(name)
    raise InvalidInput(f'a worker cannot be named {name!r}: expected text, as in @worker("charge")')


def limits_of(
    function: Callable[..., Any], *, retry: Retry | None, timeout_s: float | None
) -> tuple[RetryPolicy | None, float | None]:
    """The retry policy and the timeout in seconds: as given, else as the function is marked."""
    policy = getattr(function, RETRY_MARK, None) if retry is None else retry_policy(retry)
    return policy, getattr(function, TIMEOUT_MARK, None) if timeout_s is None else timeout_s


def retry(
    max_attempts: int = 3,
    backoff_factor: float = 2.0,
    *,
    backoff_s: float = 1.0,
    cap_s: float = 60.0,
    jitter: bool = True,
    on: Errors = (),
    not_on: Errors = (),
) -> Callable[[F], F]:
    """Set the number of attempts of a worker, and the delays between them in seconds.

    ``on`` and ``not_on``: classes of errors, or their names, that are always retried, and never.
    Raises InvalidInput for values outside those of `RetryPolicy`.
    """
    policy = retry_policy(
        {
            "max_attempts": max_attempts,
            "factor": backoff_factor,
            "backoff_s": backoff_s,
            "cap_s": cap_s,
            "jitter": jitter,
            "on": on,
            "not_on": not_on,
        }
    )
    return lambda target: _mark(target, "retry", RETRY_MARK, policy)


def timeout(seconds: float) -> Callable[[F], F]:
    """Set the timeout of one attempt, in seconds.  Raises InvalidInput for a bad value."""
    checked = checked_timeout(seconds, "@timeout")
    return lambda target: _mark(target, "timeout_s", TIMEOUT_MARK, checked)


def monitor_performance(target: F) -> F:
    """Count and log the calls of a worker; see its ``performance``."""
    return wrap(target, monitored)


def wrap(target: F, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> F:
    """The wrapped function; the function of a `Worker` is wrapped in place."""
    if not isinstance(target, Worker):
        return wrapper(target)  # type: ignore[return-value]  # a wrapper keeps the signature
    target.function = wrapper(target.function)
    target.performance = getattr(target.function, "performance", None)
    return target


def retry_policy(value: Retry) -> RetryPolicy:
    """The policy for a policy, a dict of its fields, or a number of attempts."""
    if isinstance(value, RetryPolicy):
        if not (value.on or value.not_on):
            return value
        value = value.model_dump()
    fields: Any = {"max_attempts": value} if isinstance(value, int) else value
    if isinstance(fields, Mapping):
        fields, mistakes = read_policy(fields, ERROR_KEYS)
        if mistakes:
            raise InvalidInput(f"bad retry policy: {'; '.join(mistakes)}")
    try:
        return RetryPolicy.model_validate(fields, strict=True)
    except ValidationError as error:
        raise InvalidInput(
            f"bad retry policy: {explain(error)}; fields: {', '.join(RetryPolicy.model_fields)}"
        ) from error


def _mark(target: F, attribute: str, mark: str, value: object) -> F:
    if isinstance(target, Worker):
        setattr(target, attribute, value)
    else:
        setattr(target, mark, value)
    return target


def _default_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    if name is None:
        raise InvalidInput(f'{function!r} has no name of its own: give it one with @worker("name")')
    return str(name)


def refuse_worker(function: Callable[..., Any]) -> None:
    """Raise InvalidInput for an object that is a worker already, or no function."""
    if isinstance(function, Worker):
        raise InvalidInput(
            f"{function.named_place} is the worker {function.name!r} already: one @worker is enough"
        )
    if not callable(function):
        raise InvalidInput(f"@worker stands above a function, not above {function!r}")
