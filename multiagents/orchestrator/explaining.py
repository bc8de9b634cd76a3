"""What is read to explain a saga?

Its state, its outbox and claims, the times at which something is due, who works and what waits in
the queues concerned.  Reads only; `explanation` and `underway` make the sentences.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from kombu.exceptions import KombuError

from multiagents.core.clock import Clock
from multiagents.core.entries import Asked, decode
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.settings import Settings
from multiagents.core.states import Command, Kind, SagaState, StepState
from multiagents.orchestrator.catalog import Catalog
from multiagents.orchestrator.commands import DEADLINE
from multiagents.orchestrator.coordinator import Coordinator
from multiagents.orchestrator.dead_letters import DeadLetters
from multiagents.orchestrator.explanation import Situation, explanation
from multiagents.orchestrator.outbox import target_of
from multiagents.orchestrator.saga import Saga
from multiagents.orchestrator.sweeper import Backlog, QueueHead
from multiagents.orchestrator.underway import (
    Surroundings,
    Task,
    members_of,
    shown,
    tasks_of,
    underway,
)
from multiagents.orchestrator.workflow import TaskCall, Workflow, worker_name
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage import waiting
from multiagents.storage.calls import Flow, ask
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.keys import SagaKeys


class Explaining(DeadLetters):
    """Says why a saga is where it is."""

    def __init__(
        self, coordinator: Coordinator, *, settings: Settings, clock: Clock, catalog: Catalog
    ) -> None:
        super().__init__(coordinator, settings=settings, clock=clock)
        self.catalog = catalog

    def explain(self, saga_id: str) -> Flow[dict[str, Any]]:
        """Why the saga is where it is and what would move it.

        ``text`` in a paragraph; ``reasons`` one by one, each with ``code``, ``text``, ``step``,
        ``kind``, ``at`` (when it moves by itself at the latest) and ``commands``; ``commands``:
        all that a person can do.  Changes nothing.  Raises UnknownSaga.
        """
        keys = self.coordinator.keys(saga_id)
        saga, workflow = yield from self.coordinator.current(saga_id)
        work = yield from ask(store.work(keys))
        fleet = yield from self._fleet()
        now = Situation(
            saga,
            workflow,
            self._clock.now_ms(),
            due={},
            pending=(yield from self._pending(keys)),
            asked=(yield from self._asked(keys, saga)),
            workers=bool(fleet),
        )
        tasks = tasks_of(now)
        now = replace(now, due=(yield from self._due(keys, now, shown(tasks))))
        around = yield from self._around(keys, now, shown(tasks), work, fleet)
        return explanation(now, underway(now, around, tasks))

    def _fleet(self) -> Flow[dict[str, dict[str, Any]]]:
        """Who runs; nobody where the server that would know it does not answer."""
        try:
            return (yield from self.catalog.fleet())
        except UNREACHABLE:
            return {}

    def _pending(self, keys: SagaKeys) -> Flow[int]:
        view = yield from ask(store.load(keys))
        if isinstance(view, str):
            raise UnknownSaga(f"no saga {keys.id!r}: its retention has just ended")
        return len(view.entries)

    def _asked(self, keys: SagaKeys, saga: Saga) -> Flow[Asked | None]:
        """The last command of the kind that brought the saga where it is."""
        command = _brought_by(saga)
        if command is None:
            return None
        entries = [decode(text) for text in (yield from store.log(keys))]
        asked = [each for each in entries if isinstance(each, Asked) and each.command is command]
        return asked[-1] if asked else None

    def _due(self, keys: SagaKeys, now: Situation, tasks: list[Task]) -> Flow[dict[str, int]]:
        saga_id = keys.id
        members = [*members_of(now, tasks), k.due_timer(saga_id, DEADLINE), k.due_purge(saga_id)]
        scores = yield from ask(waiting.since(keys.due, members))
        pairs = zip(members, scores, strict=True)
        return {member: score for member, score in pairs if score is not None}

    def _around(
        self,
        keys: SagaKeys,
        now: Situation,
        tasks: list[Task],
        work: dict[str, str],
        fleet: dict[str, dict[str, Any]],
    ) -> Flow[Surroundings]:
        sent = [task for task in tasks if task.state == StepState.DISPATCHED.value]
        queue_of = {
            k.outbox_field(
                task.kind, task.step, now.saga.steps[task.step].of(task.kind).attempt
            ): self._queue(now.workflow, task)
            for task in sent
        }
        priorities = {
            self._queue(now.workflow, task): now.workflow.by_name[task.step].priority
            for task in sent
        }
        backlogs = {}
        for queue, priority in priorities.items():
            backlogs[queue] = yield from _backlog(queue, priority)
        progress = yield from self._progress(keys, tasks)
        return Surroundings(work, fleet, backlogs, queue_of, progress)

    def _queue(self, workflow: Workflow, task: Task) -> str:
        spec = workflow.by_name[task.step]
        target = target_of(spec, task.kind)
        own = spec.queue if task.kind is Kind.RUN else None
        if isinstance(target, TaskCall):
            own = target.queue or own
        return own or self.catalog.queue_of(worker_name(target))

    def _progress(self, keys: SagaKeys, tasks: list[Task]) -> Flow[dict[str, dict[str, Any]]]:
        steps = [task.step for task in tasks if task.state == StepState.RUNNING.value]
        if not steps:
            return {}
        texts = yield from ask(store.some_data(keys, [f"p:{step}" for step in steps]))
        pairs = zip(steps, texts, strict=True)
        return {step: json.loads(text) for step, text in pairs if text}


def _brought_by(saga: Saga) -> Command | None:
    if saga.terminated:
        return Command.TERMINATE
    if saga.state is SagaState.PAUSED:
        return Command.PAUSE
    if saga.rolled_back:
        return Command.ROLLBACK
    return Command.CANCEL if saga.cancelled else None


def _backlog(queue: str, priority: int | None) -> Flow[Backlog]:
    """What waits in a queue; not known where the broker does not answer."""
    try:
        found: Backlog = yield QueueHead(queue, priority)
    except (*UNREACHABLE, KombuError, OSError):
        return Backlog(None)
    return found
