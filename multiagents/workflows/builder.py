"""How is a workflow written in Python?

    order = (WorkflowBuilder("order")
        .add_step("reserve", "reserve_inventory", compensation="release_inventory")
        .add_step("charge", "charge_card", compensation="refund_card", timeout_s=30)
        .parallel([("mail", send_mail), ("ship", "ship_order")])
        .build())

The builder only collects a document; `parse` defines its meaning.  Only `build` refuses a
document, and it reports all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, Self

from pydantic import ValidationError

from multiagents.core.names import queue_flaw
from multiagents.core.policies import RetryPolicy
from multiagents.workflows.parse import DefinitionReading, read, task_mistakes
from multiagents.workflows.registry import note_begun, note_built, note_ended
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.task_calls import UncallableTask, call_of, is_task, refusal
from multiagents.workflows.validate import refuse
from multiagents.workflows.workflow import Workflow

Retry = RetryPolicy | Mapping[str, Any] | int
"""A number is that many attempts, with the other values of a `RetryPolicy` as they are."""
Branch = Step | Mapping[str, Any] | Sequence[Any]
"""A branch of `WorkflowBuilder.parallel`: ``(NAME, WORKER)``, keywords of ``add_step``, a Step."""
WORKER_KEYS = ("worker", "compensation")
_OF_BUILT = frozenset(name for name in dir(Workflow) if name[0] != "_") | set(Workflow.model_fields)
"""The attributes of a `Workflow`, to detect that ``build`` was forgotten."""


class WorkflowBuilder:
    """Collects the steps of a workflow, one after the other; `build` checks and freezes them.

    ``timeout_s`` is the deadline of the whole saga in seconds.  With ``parallel_undo``, the engine
    undoes independent branches at the same time.  ``examples`` are inputs: see `example`.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout_s: float | None = None,
        tags: Iterable[str] = (),
        parallel_undo: bool = False,
        description: str = "",
        examples: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._head: dict[str, Any] = {
            "name": name,
            "timeout_s": timeout_s,
            "tags": tags if isinstance(tags, str) else tuple(tags),
            "parallel_undo": parallel_undo,
            "description": description,
            "examples": examples if isinstance(examples, Mapping | str) else tuple(examples),
        }
        self._steps: list[Any] = []
        note_begun(self, str(name))

    def __getattr__(self, name: str) -> NoReturn:
        """Python calls this only for a missing attribute.  Raises AttributeError, with advice."""
        advice = "; call .build() first, as in .build().register()" if name in _OF_BUILT else ""
        raise AttributeError(f"a WorkflowBuilder has no attribute {name!r}{advice}")

    def add_step(
        self,
        name: str,
        worker: object,
        *,
        compensation: object = None,
        depends_on: Sequence[str] | str | None = None,
        when: str | None = None,
        failed_when: str | None = None,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        compensation_retry: Retry | None = None,
        compensation_timeout_s: float | None = None,
        compensate_on_failure: Literal["unknown", "always", "never"] = "unknown",
        pivot: bool = False,
        queue: str | None = None,
        priority: int | None = None,
    ) -> Self:
        """Add a step after the step (or the parallel group) that was added last.

        ``depends_on`` names other steps to wait for; ``[]`` makes the step start with the saga.
        ``worker`` and ``compensation`` are a worker's name, a ``@worker`` function, a Celery task
        or a `task`.  ``when`` and ``failed_when`` are CEL; times are in seconds; ``priority`` is
        0 to 9, where the broker has priorities.
        """
        step = {key: value for key, value in locals().items() if key != "self"}
        self._steps.append(_with_names(step))
        return self

    def parallel(
        self, branches: Iterable[Branch], *, depends_on: Sequence[str] | str | None = None
    ) -> Self:
        """Add steps that run at the same time; the next step waits for all of them.

        A branch is ``(NAME, WORKER)``, ``(NAME, WORKER, COMPENSATION)``, a dict with the
        keywords of `add_step`, or a `Step`.
        """
        group = [_branch(branch) for branch in branches]
        self._steps.append({"parallel": group, "depends_on": depends_on})
        return self

    def timeout(self, seconds: float) -> Self:
        """Set the deadline of the whole saga; a missed deadline compensates, like a failure."""
        self._head["timeout_s"] = seconds
        return self

    def tag(self, *tags: str) -> Self:
        """Add tags, by which sagas are listed."""
        self._head["tags"] = (*self._head["tags"], *tags)
        return self

    def example(self, input: Mapping[str, Any]) -> Self:  # noqa: A002 - a saga's input
        """Add an input to try the workflow with; `multiagents dev` prints a start of the first.

        Examples are published with the workflow.  They do not change its version, and no saga
        carries them.
        """
        self._head["examples"] = (*self._head["examples"], input)
        return self

    @property
    def errors(self) -> tuple[str, ...]:
        """All mistakes so far, each with its place; empty when `build` will succeed."""
        return tuple(self._read().errors)

    def build(self) -> Workflow:
        """The workflow.  Raises InvalidWorkflow with all mistakes together."""
        note_ended(self)
        reading = self._read()
        if reading.workflow is None:
            raise refuse(f"workflow {reading.name!r}", reading.errors)
        note_built(reading.workflow)
        return reading.workflow

    def _read(self) -> DefinitionReading:
        return read({**self._head, "steps": self._steps})


def task(
    target: object,
    *,
    args: Sequence[str] | None = None,
    kwargs: Mapping[str, str] | None = None,
    queue: str | None = None,
    timeout_s: float | None = None,
) -> TaskCall:
    """A plain Celery task, by name or object, as a step's worker or compensation.

    ``args`` and ``kwargs`` are CEL expressions over the saga (``input.amount``,
    ``steps.reserve.result.id``, ``key`` for the idempotency key; a compensation also has
    ``result``, ``error`` and ``step_key`` of its step); without both, the task gets the context
    as its only argument.  A task object that takes no arguments gets none.
    After ``timeout_s`` (default 300 s) the task counts as lost, because a plain task sends no
    heartbeats.

    Raises InvalidWorkflow when a field is wrong, or a task object takes other arguments; ``build``
    checks the expressions.
    """
    given = {"args": args, "kwargs": kwargs, "queue": queue, "timeout_s": timeout_s}
    data = {"task": _name_of(target)}
    data.update((key, value) for key, value in given.items() if value is not None)
    try:
        call = TaskCall.model_validate(data)
    except ValidationError as error:
        raise refuse("task()", task_mistakes(error, data)) from error
    if call.queue is not None and (flaw := queue_flaw(call.queue)):
        raise refuse("task()", [f"task(): queue {call.queue!r}: {flaw}"])
    return _checked(target, call)


def _checked(target: object, call: TaskCall) -> TaskCall:
    """The call in a form that the task accepts.  Raises InvalidWorkflow if there is none."""
    if not is_task(target):
        return call
    found = refusal(target, call) if call.computes else call_of(target)
    if isinstance(found, UncallableTask):
        raise refuse("task()", [f"task(): {found.why}"])
    return call.model_copy(update={"args": found.args}) if found else call


def _branch(branch: Branch) -> object:
    """The branch as a step's document; anything else stays as it is, and `build` reports it."""
    if isinstance(branch, Step):
        return branch.model_dump(exclude_unset=True)
    if isinstance(branch, Mapping):
        return _with_names(branch)
    if isinstance(branch, tuple | list) and len(branch) in (2, 3):
        return _with_names(dict(zip(("name", *WORKER_KEYS), branch, strict=False)))
    return branch


def _with_names(step: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(step)
    plain.update((key, _worker(plain[key])) for key in WORKER_KEYS if key in plain)
    return plain


def _name_of(target: Any) -> Any:
    """The name of a task; anything else stays as it is, and the check reports it."""
    if isinstance(target, TaskCall):
        return target.task
    return target.name if is_task(target) else _worker(target)


def _worker(target: Any) -> Any:
    """The name of a worker, or the call of a Celery task; anything else as it is."""
    if isinstance(target, str | TaskCall | Mapping) or target is None:
        return target
    name = getattr(target, "name", None)
    if getattr(target, "is_multiagents_worker", False) is True:
        return name
    if is_task(target):
        return call_of(target)
    worker_name = getattr(target, "worker_name", None)
    return worker_name if isinstance(worker_name, str) else target
