"""What can a user's test do with a saga in this process?

`SagaLab` runs sagas eagerly: no server, no worker, and a clock that the test advances.  The engine
is the real one, without the network and without waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from multiagents.core.exceptions import InvalidInput, UnknownSaga, WorkerExecutionError
from multiagents.core.near import near
from multiagents.core.states import Kind
from multiagents.hosting.eager import Begun, EagerRunner
from multiagents.workflows import registry
from multiagents.workflows.step import Step, worker_name
from multiagents.workflows.workflow import Workflow


class SagaLab:
    """Sagas of one app, run in this process; see `multiagents.testing.plugin.saga_lab`."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._eager = runtime.eager

    @property
    def runner(self) -> EagerRunner:
        """The runner of the sagas, for the report of a failed test."""
        runner: EagerRunner = self._eager
        return runner

    def start(self, workflow: Any, input: dict[str, Any] | None = None, **options: Any) -> str:  # noqa: A002
        """Run a saga until it ends or waits for an operator, and return its id."""
        saga_id: str = self._runtime.call("start", workflow, input, **options)
        return saga_id

    def get(self, saga_id: str) -> dict[str, Any]:
        """The saga, in the form of ``multiagents.sagas.get``."""
        saga: dict[str, Any] = self._runtime.call("get", saga_id)
        return saga

    def fail(
        self,
        step: str,
        *,
        attempt: int | None = 1,
        error: BaseException | None = None,
        undo: bool = False,
    ) -> None:
        """Make a step (or its compensation) fail on an attempt; ``attempt=None``: on every one.

        The worker function or plain task is then not called.  The next start raises InvalidInput if
        no earlier saga, registered workflow or started workflow has such a step (with a
        compensation).
        """
        kind = Kind.UNDO if undo else Kind.RUN
        wanted = error or WorkerExecutionError(f"the test makes {step} fail")

        def fault(held: Begun) -> None:
            if (held.kind, held.step) == (kind, step) and attempt in (None, held.attempt):
                raise wanted

        self._eager.faults.append(fault)
        if not _has_step(self._started(), step, undo=undo):
            self._eager.guards.append(partial(_check_step, step, undo=undo))

    def path(self, saga_id: str) -> list[str]:
        """The forward attempts that began, as step names, in order."""
        return self._names(saga_id, Kind.RUN)

    def undone(self, saga_id: str) -> list[str]:
        """The compensations that began, as step names, in order."""
        return self._names(saga_id, Kind.UNDO)

    def _started(self) -> list[Workflow]:
        """The definitions of the sagas that were started here."""
        host = self._eager.host
        started = []
        for saga_id in {one.saga_id for one in self._eager.path}:
            with suppress(UnknownSaga):  # its retention is over
                started.append(host.edge.run(host.coordinator.repository.current(saga_id))[1])
        return started

    def _names(self, saga_id: str, kind: Kind) -> list[str]:
        held = [one for one in self._eager.path if one.saga_id == saga_id and one.kind is kind]
        return [one.step for one in held]

    def assert_path(self, saga_id: str, *steps: str) -> None:
        """Fail unless exactly these forward attempts began, in this order."""
        found = self.path(saga_id)
        assert found == list(steps), f"saga ran {found}, expected {list(steps)}"

    def assert_undone(self, saga_id: str, *steps: str) -> None:
        """Fail unless exactly these steps were undone, in this order."""
        found = self.undone(saga_id)
        assert found == list(steps), f"saga undid {found}, expected {list(steps)}"

    def advance(self, seconds: float) -> None:
        """Advance the clock and handle all due items."""
        self._eager.advance(seconds)


def _check_step(name: str, workflow: Workflow, *, undo: bool) -> None:
    """Raise InvalidInput unless a saga of the workflow, or a registered one, has the step."""
    workflows = [workflow, *registry.registered().values()]
    if _has_step(workflows, name, undo=undo):
        return
    steps = [step for each in workflows for step in each.steps]
    runs = dict.fromkeys(step.name for step in steps if name in _run_by(step))
    if _has_step(workflows, name):
        why = f"step {name!r} has no compensation that could fail"
    elif runs:
        why = f"{name!r} is not a step: name the step that runs it, {' or '.join(runs)}"
    else:
        known = [step.name for step in workflow.steps]
        every = dict.fromkeys([*known, *(step.name for step in steps)])
        close = near(name, every, most=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        why = f"unknown step {name!r} of workflow {workflow.name!r}; {hint}"
    raise InvalidInput(f"the test's fail({name!r}): {why}")


def _has_step(workflows: Iterable[Workflow], name: str, *, undo: bool = False) -> bool:
    steps = (step for workflow in workflows for step in workflow.steps if step.name == name)
    return any(step.compensation or not undo for step in steps)


def _run_by(step: Step) -> list[str]:
    """The names of the functions and tasks that a step and its undo run."""
    return [worker_name(target) for target in (step.worker, step.compensation) if target]


@contextmanager
def eager(runtime: Any) -> Iterator[SagaLab]:
    """Switch an app to eager mode, with a temporary store of its own.

    In the block, a test may register a workflow again; afterwards the earlier one is back.
    """
    conf = runtime.app.conf
    before = conf.task_always_eager, runtime.eager.asked_by
    conf.task_always_eager, runtime.eager.asked_by = True, "the fixture saga_lab"
    runtime.eager.reset()
    try:
        with registry.scratch():
            yield SagaLab(runtime)
    finally:
        conf.task_always_eager, runtime.eager.asked_by = before
        runtime.eager.reset()
