"""What is one step of a workflow?

A `Step` names the function or task that runs it and the one that undoes it.  Frozen values; no
I/O.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from multiagents.core.policies import RetryPolicy
from multiagents.core.states import Kind

Name = Annotated[str, Field(min_length=1, max_length=128)]
Priority = Annotated[int, Field(ge=0, le=9)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
MOST_EXAMPLES = 20
"""Examples that one workflow may have."""


class TaskCall(BaseModel):
    """A plain Celery task as a step or compensation.

    ``args`` and ``kwargs`` are CEL expressions over the context (``input.amount``,
    ``steps.reserve.result.id``, ``key`` for the idempotency key); both None: the task gets the
    context as its only argument.  ``timeout_s`` is mandatory for plain tasks, because they send
    no heartbeats: it is the default, and the step's own ``timeout_s`` overrides it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Name
    args: tuple[str, ...] | None = None
    kwargs: dict[str, str] | None = None
    queue: Name | None = None
    timeout_s: Seconds = 300.0

    @property
    def computes(self) -> bool:
        """Whether expressions give its arguments, instead of the context."""
        return self.args is not None or self.kwargs is not None


class Step(BaseModel):
    """One step.  ``worker`` and ``compensation`` name a worker function or a `TaskCall`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    worker: Name | TaskCall
    depends_on: tuple[Name, ...] = ()
    when: str | None = None
    failed_when: str | None = None
    retry: RetryPolicy | None = None
    timeout_s: Seconds | None = None
    compensation: Name | TaskCall | None = None
    compensation_retry: RetryPolicy | None = None
    compensation_timeout_s: Seconds | None = None
    compensate_on_failure: Literal["unknown", "always", "never"] = "unknown"
    pivot: bool = False
    queue: Name | None = None
    priority: Priority | None = None

    def target(self, kind: Kind) -> str | TaskCall:
        """The worker function or task that runs it, or the one that undoes it."""
        target = self.worker if kind is Kind.RUN else self.compensation
        if target is None:
            raise AssertionError(f"step {self.name!r} has no compensation to dispatch")
        return target


def worker_name(target: str | TaskCall) -> str:
    """The name that Flower and the logs show for a step's or compensation's worker."""
    return target if isinstance(target, str) else target.task
