"""What is read to explain a saga?

Its state, outbox, claims and due times; the running workers and the queues of its steps; and
whether its server takes writes.  Reads only; `explanation` and `underway` make the sentences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from multiagents.core.clock import Clock
from multiagents.core.entries import Requested, decode
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.fields import OUTBOX_END
from multiagents.core.settings import Settings, shown_url
from multiagents.core.states import Action, Kind, StepState
from multiagents.engine import launches
from multiagents.engine.catalog import Catalog, Members, split
from multiagents.engine.queue_heads import Backlog, QueueDepth
from multiagents.engine.repository import Repository
from multiagents.operations.earlier_attempts import Earliers, earlier_attempts
from multiagents.operations.explain.blocked_loops import Report, blocked_now
from multiagents.operations.explain.late_reports import late_successes
from multiagents.operations.explain.saga import Situation, explanation
from multiagents.operations.explain.steps import members_of, underway
from multiagents.operations.explain.surroundings import (
    Surroundings,
    Task,
    field_of,
    plain_task,
    shown,
    tasks_of,
)
from multiagents.operations.explain.unclaimed_steps import is_stranded, stranded
from multiagents.operations.moving_action import action_of, stands
from multiagents.operations.owners import Owners, by_any_id
from multiagents.operations.queries import Queries
from multiagents.operations.settlements import Settlement, settlements
from multiagents.operations.start_advice import StartAdvice
from multiagents.saga.commands import DEADLINE
from multiagents.saga.state import Saga
from multiagents.storage import dead_letter_index, failures
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.health import sweeps
from multiagents.storage.keys import SagaKeys
from multiagents.storage.writes import read_refusal
from multiagents.workflows.step import worker_name
from multiagents.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class OperatorActions:
    """What the log of a saga says about operators and earlier attempts."""

    asked: Requested | None = None
    """The action that moved it to its state; None: no action did."""
    settled: Sequence[Settlement] = ()
    """The last action on each of its dead letters, by time."""
    earlier: Earliers = field(default_factory=dict)
    """The ends of the attempts before the present ones."""


class Explainer:
    """Explains the state of sagas."""

    def __init__(
        self,
        repository: Repository,
        *,
        owners: Owners,
        queries: Queries,
        starts: StartAdvice,
        settings: Settings,
        clock: Clock,
        catalog: Catalog,
    ) -> None:
        self.owners = owners
        self._repository = repository
        self._queries = queries
        self._starts = starts
        self._settings = settings
        self._clock = clock
        self._catalog = catalog

    @by_any_id
    async def explain(self, saga_id: str) -> dict[str, Any]:
        """Why the saga is where it is and what would move it.

        ``text`` has short paragraphs, with the commands on lines of their own; ``summary`` is the
        first paragraph.  Each of ``reasons`` has ``code``, ``text``, ``step``, ``kind``, ``at``
        (the latest time at which it moves without an operator) and ``commands``.  ``commands`` are
        all that help.  Changes nothing.  Raises UnknownSaga and DamagedSaga.
        """
        keys = self._repository.keys(saga_id)
        saga, workflow = await self._queries.sound(saga_id)
        work = await store.work(keys)
        people = await self._people(keys, saga, workflow)
        fleet, stopping = split(await self._fleet())
        pending, since_ms = await self._pending(keys)
        now = Situation(
            saga,
            workflow,
            self._clock.now_ms(),
            due={},
            pending=pending,
            pending_since_ms=since_ms,
            asked=people.asked,
            settled=people.settled,
            workers=bool(fleet),
            server=self._server(keys),
            refusal=await read_refusal(keys.saga),
        )
        tasks = tasks_of(now)
        if any(task.state == StepState.PARKED.value for task in tasks):
            now = replace(now, is_changed=await self.is_changed(workflow))
        now = replace(now, due=await self._due(keys, now, shown(tasks)))
        now = replace(now, failing=await self._failing(keys, now))
        if any(task.state == StepState.RUNNING.value for task in tasks):
            swept = await sweeps(keys.shard)
            again = swept.gives_a_term(now.now_ms, self._settings.lease_ms)
            now = replace(now, one_more_term=again)
        around = await self._around(keys, now, shown(tasks), work, fleet)
        around = replace(around, stopping=stopping, earlier=people.earlier)
        return explanation(now, underway(now, around, tasks))

    async def people(self, saga_id: str) -> OperatorActions:
        """The operators' actions that moved the saga to its state or settled its dead letters.

        Raises UnknownSaga and DamagedSaga.
        """
        saga, workflow = await self._repository.current(saga_id)
        return await self._people(self._repository.keys(saga_id), saga, workflow)

    async def _people(self, keys: SagaKeys, saga: Saga, workflow: Workflow) -> OperatorActions:
        entries = [decode(text) for text in await store.log(keys)]
        earlier = earlier_attempts(saga, entries)
        if not any(isinstance(entry, Requested) for entry in entries):
            return OperatorActions(earlier=earlier)
        data = await store.data(keys) if workflow.has_conditions else {}
        settled = settlements(keys.id, workflow, entries, data)
        return OperatorActions(action_of(saga, workflow, entries, data), settled, earlier)

    async def is_changed(self, workflow: Workflow) -> bool:
        """Whether the name of a saga's workflow has another definition now (rule 9)."""
        try:
            present = await self._catalog.workflow(workflow.name)
        except UNREACHABLE:
            return False
        return present is not None and present.version != workflow.version

    @by_any_id
    async def standing(self, saga_id: str, action: Action) -> OperatorActions | None:
        """The action that has already paused or cancelled the saga; None: no action has."""
        saga, workflow = await self._repository.current(saga_id)
        if not stands(saga, action):
            return None
        return await self._people(self._repository.keys(saga_id), saga, workflow)

    async def stranded(self, saga_id: str) -> str:
        """Why no worker does the steps of a saga, and the remedy; empty if a worker may.

        For a caller that waits for the saga.
        """
        try:
            reasons = (await self.explain(saga_id))["reasons"]
        except UnknownSaga:
            return ""
        at_work = [reason for reason in reasons if reason["step"]]
        if not at_work or not all(map(is_stranded, at_work)):
            return ""
        return stranded(at_work[0])

    def _server(self, keys: SagaKeys) -> str:
        """The URL of the saga's server without its password."""
        servers = self._settings.servers.items()
        return next(shown_url(url) for url, shards in servers if keys.shard.number in shards)

    async def _fleet(self) -> dict[str, dict[str, Any]]:
        """The running workers; none if the server of the catalog is away."""
        try:
            return await self._catalog.fleet()
        except UNREACHABLE:
            return {}

    async def _loops(self) -> Sequence[Report]:
        """Which event loops of running workers are blocked."""
        try:
            return blocked_now(await self._catalog.loops(), self._clock.now_ms())
        except UNREACHABLE:
            return []

    async def _pending(self, keys: SagaKeys) -> tuple[int, int]:
        """The number of undecided entries, and the time of the first of them."""
        view = await store.load(keys)
        if isinstance(view, str):
            raise UnknownSaga(f"no saga {keys.id!r}: its retention has just ended")
        times = [entry.at_ms for entry in view.entries]
        return len(times), min(times, default=0)

    async def asked(self, keys: SagaKeys, saga: Saga, workflow: Workflow) -> Requested | None:
        """The operator's action that moved the saga to its state."""
        return (await self._people(keys, saga, workflow)).asked

    async def _due(self, keys: SagaKeys, now: Situation, tasks: list[Task]) -> dict[str, int]:
        saga_id = keys.id
        own = (k.due_timer(saga_id, DEADLINE), k.due_purge(saga_id), k.due_dirty(saga_id))
        members = [*members_of(now, tasks), *own, k.due_outbox(saga_id, OUTBOX_END)]
        scores = await dead_letter_index.since(keys.due, members)
        pairs = zip(members, scores, strict=True)
        return {member: score for member, score in pairs if score is not None}

    async def _failing(self, keys: SagaKeys, now: Situation) -> dict[str, failures.Failing]:
        """The failures by due member; the counts of a member outlast its failures for a while."""
        if not now.due:
            return {}
        return await failures.stuck_among(keys.shard, tuple(now.due))

    async def _around(
        self,
        keys: SagaKeys,
        now: Situation,
        tasks: list[Task],
        work: dict[str, str],
        fleet: Members,
    ) -> Surroundings:
        known = await self._starts.launches()
        routes = launches.routes_of(fleet, known)
        queue_of, backlogs = await self._queues(now, tasks, fleet, routes)
        progress = await self._progress(keys, tasks)
        parked = any(task.state == StepState.PARKED.value for task in tasks)
        late = late_successes(map(decode, await store.log(keys))) if parked else {}
        imports = self._settings.import_names
        running = any(task.state == StepState.RUNNING.value for task in tasks)
        loops = await self._loops() if running else []
        return Surroundings(work, fleet, queue_of, backlogs, progress, late, known, imports, loops)

    async def _queues(
        self, now: Situation, tasks: list[Task], fleet: Members, routes: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, Backlog]]:
        """The queue of each message and its backlog, by outbox field."""
        queue_of: dict[str, str] = {}
        backlogs: dict[str, Backlog] = {}
        looks: dict[QueueDepth, Backlog] = {}
        for task in tasks:
            is_plain = plain_task(now, task) is not None
            if task.state != StepState.DISPATCHED.value and not (
                is_plain and task.state == StepState.RUNNING.value
            ):
                continue
            name, queue = field_of(now, task), self._queue(now, task, routes)
            priority = now.workflow.by_name[task.step].priority
            # A team's task may have a priority of its own, which selects the list in Redis.
            any_list = is_plain and priority is None
            broker = _broker_of(queue, fleet)
            look = QueueDepth(queue, priority, broker, any_priority=any_list)
            if queue and look not in looks:
                looks[look] = await look
            queue_of[name], backlogs[name] = queue, looks.get(look, Backlog(None))
        return queue_of, backlogs

    def _queue(self, now: Situation, task: Task, routes: Mapping[str, str]) -> str:
        """The queue of a task's message; empty if an app unknown here routes it."""
        spec = now.workflow.by_name[task.step]
        call = plain_task(now, task)
        if call is not None:
            named = call.queue or spec.queue
            return named or routes.get(call.task) or self._catalog.route_of(call.task)
        own = spec.queue if task.kind is Kind.RUN else None
        return own or self._catalog.queue_of(worker_name(spec.target(task.kind)))

    async def _progress(self, keys: SagaKeys, tasks: list[Task]) -> dict[str, dict[str, Any]]:
        steps = [task.step for task in tasks if task.state == StepState.RUNNING.value]
        if not steps:
            return {}
        texts = await store.some_data(keys, [f"p:{step}" for step in steps])
        pairs = zip(steps, texts, strict=True)
        return {step: json.loads(text) for step, text in pairs if text}


def _broker_of(queue: str, fleet: Members) -> str:
    """The broker kind of the workers of a queue, else of all workers; empty: unknown."""
    consumers = [each for each in fleet.values() if queue in each["queues"]]
    kinds = {each.get("broker", "") for each in consumers or fleet.values()}
    return str(kinds.pop()) if len(kinds) == 1 else ""
