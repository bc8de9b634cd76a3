"""What can one do with sagas?

`OPERATIONS` is the one table of them; the sync face (`multiagents.sagas`), the async one
(`Orchestrator`), the Celery tasks and the command line are made from it.  Each operation is a
`Flow` method of `SagaService`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from multiagents.core import ids
from multiagents.core.clock import Clock
from multiagents.core.entries import Asked, Entry, decode
from multiagents.core.exceptions import InvalidInput, UnknownWorker, UnknownWorkflow
from multiagents.core.settings import Settings
from multiagents.core.states import ENDED, Command, Kind, SagaState, StepState, UndoState
from multiagents.orchestrator import registry
from multiagents.orchestrator.catalog import Catalog
from multiagents.orchestrator.coordinator import Coordinator
from multiagents.orchestrator.decide import fold
from multiagents.orchestrator.outcome import failure_of, merged_result
from multiagents.orchestrator.saga import Saga, StepRun, Work, new_saga
from multiagents.orchestrator.workflow import Workflow
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.keys import Shard

OPERATIONS = (
    "start",
    "get",
    "list",
    "history",
    "pause",
    "resume",
    "cancel",
)
"""The operations that every face offers, by method name."""

Rows = list[dict[str, Any]]
Ages = list[tuple[str, float]]

CheckInput = Callable[[Any, int], str]
"""Refuses an input that cannot be a saga's, or returns it as JSON."""


class SagaService:
    """Start, look at and steer sagas."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        settings: Settings,
        clock: Clock,
        catalog: Catalog,
        check_input: CheckInput,
    ) -> None:
        self.coordinator = coordinator
        self.catalog = catalog
        self._settings = settings
        self._clock = clock
        self._check_input = check_input

    # ---- start ----

    def start(
        self,
        workflow: str | Workflow,
        input: dict[str, Any] | None = None,  # noqa: A002 - the public name of the argument
        *,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        tags: Sequence[str] = (),
        task_id: str | None = None,
        canvas: dict[str, Any] | None = None,
    ) -> Flow[str]:
        """Start a saga and return its id; durable when it returns.

        With an ``idempotency_key`` the first start counts and later ones return its id.  Raises
        UnknownWorkflow, UnknownWorker or InvalidInput before anything is stored.
        """
        text = self._check_input({} if input is None else input, self._settings.max_input_bytes)
        found = yield from self.find_workflow(workflow)
        yield from self._check_workers(found)
        saga_id = _saga_id(found, idempotency_key, task_id)
        about = {
            "correlation_id": correlation_id,
            "tags": list(dict.fromkeys([*found.tags, *tags])),
            "idempotency_key": idempotency_key,
        }
        meta = {name: value for name, value in about.items() if value}
        yield from self.coordinator.start(
            found,
            saga_id=saga_id,
            waiting=(task_id or saga_id, json.dumps(canvas) if canvas else ""),
            data={"input": text, "meta": json.dumps(meta)},
            tags=tuple(tags),
        )
        return saga_id

    def find_workflow(self, workflow: str | Workflow) -> Flow[Workflow]:
        """A definition by name: registered here, or published by a running worker."""
        if isinstance(workflow, Workflow):
            return workflow
        local = registry.find(workflow)
        if local is not None:
            return local
        published = yield from self.catalog.workflow(workflow)
        if published is None:
            known = sorted({*registry.registered(), *(yield from self.catalog.workflow_names())})
            raise UnknownWorkflow(_unknown("workflow", workflow, known))
        return published

    def _check_workers(self, workflow: Workflow) -> Flow[None]:
        missing = yield from self.catalog.missing(set(workflow.workers))
        if missing:
            known = yield from self.catalog.worker_names()
            problems = "; ".join(_unknown("worker", name, known) for name in sorted(missing))
            raise UnknownWorker(
                f"workflow {workflow.name!r} cannot run: {problems}. Start a worker that has it,"
                " or use task(...) for a plain Celery task"
            )

    # ---- look ----

    def get(self, saga_id: str) -> Flow[dict[str, Any]]:
        """A saga as JSON-safe data; see docs/reference.md for its shape.  Raises UnknownSaga."""
        saga, workflow = yield from self.coordinator.current(saga_id)
        data = yield from ask(store.data(self.coordinator.keys(saga_id)))
        return describe(saga, workflow, data)

    def list(
        self,
        *,
        state: str | None = None,
        workflow: str | None = None,
        tag: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Flow[Rows]:
        """Sagas, newest first, as `get` gives them but without input and results.

        Of all shards: where one's server does not answer, nothing is listed instead of a part.
        """
        shards = [Shard(number) for number in range(self._settings.shards)]
        indexes = [_index(shard, state, workflow, tag) for shard in shards]
        rows: Rows = []
        for saga_id in (yield from self._newest(indexes, offset, limit)):
            row = yield from self._row(saga_id)
            if row and _matches(row, state, workflow, tag):
                rows.append(row)
        return rows

    def _newest(self, indexes: Sequence[str], offset: int, limit: int) -> Flow[Sequence[str]]:
        """A page of all these indexes together; any part of it may come from any one of them."""
        if len(indexes) == 1:
            return (yield from ask(store.ids(indexes[0], offset=offset, limit=limit)))
        found: Ages = []
        for index in indexes:
            found += yield from ask(store.ages(index, limit=offset + limit))
        found.sort(key=itemgetter(1), reverse=True)
        return [saga_id for saga_id, _ in found[offset : offset + limit]]

    def _row(self, saga_id: str) -> Flow[dict[str, Any] | None]:
        try:
            saga, workflow = yield from self.coordinator.current(saga_id)
        except LookupError:
            return None
        meta = yield from self.coordinator.meta(self.coordinator.keys(saga_id))
        row = describe(saga, workflow, {"meta": json.dumps(meta)})
        for name in ("input", "step_results", "result"):
            row.pop(name)
        return {**row, "tags": meta.get("tags", [])}

    def history(self, saga_id: str) -> Flow[Rows]:
        """What happened, oldest first, replayed from the log: entries and what they moved."""
        _, workflow = yield from self.coordinator.current(saga_id)
        keys = self.coordinator.keys(saga_id)
        log = yield from store.log(keys)
        data = yield from ask(store.data(keys))
        return replay(saga_id, workflow, [decode(text) for text in log], data)

    # ---- steer ----

    def pause(self, saga_id: str, *, by: str = "", reason: str = "") -> Flow[dict[str, Any]]:
        """Hold back new work; running steps end, timers are only recorded."""
        return (yield from self._ask(saga_id, Command.PAUSE, by, reason))

    def resume(self, saga_id: str, *, by: str = "", reason: str = "") -> Flow[dict[str, Any]]:
        """Let a paused saga go on."""
        return (yield from self._ask(saga_id, Command.RESUME, by, reason))

    def cancel(self, saga_id: str, *, by: str = "", reason: str = "") -> Flow[dict[str, Any]]:
        """Stop a saga and undo what was done; after the pivot it only asks for attention."""
        return (yield from self._ask(saga_id, Command.CANCEL, by, reason))

    def _ask(self, saga_id: str, command: Command, by: str, reason: str) -> Flow[dict[str, Any]]:
        entry = Asked(self._clock.now_ms(), command, ids.nonce(), by, reason)
        yield from self.coordinator.append(saga_id, entry)
        return (yield from self.get(saga_id))


def _saga_id(workflow: Workflow, key: str | None, task_id: str | None) -> str:
    if key is None:
        return task_id or ids.fresh_id()
    if not isinstance(key, str) or not 0 < len(key) <= ids.MAX_KEY:
        raise InvalidInput(f"idempotency_key must be a str of 1 to {ids.MAX_KEY} characters")
    return ids.derived_id(workflow.name, key)


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    return f"unknown {what} {name!r}; {hint}"


def _index(shard: Shard, state: str | None, workflow: str | None, tag: str | None) -> str:
    if tag:
        return shard.labelled(tag)
    if workflow:
        return shard.workflow(workflow)
    if state:
        return shard.state(SagaState(state))
    return shard.sagas


def _matches(row: dict[str, Any], state: str | None, workflow: str | None, tag: str | None) -> bool:
    return (
        (not state or row["state"] == state)
        and (not workflow or row["workflow"] == workflow)
        and (not tag or tag in row["tags"])
    )


def iso(ms: int) -> str | None:
    """A time as ISO 8601 in UTC; None for "not yet"."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") if ms else None


def describe(saga: Saga, workflow: Workflow, data: dict[str, str]) -> dict[str, Any]:
    """A saga in the shape that users see everywhere."""
    results = {
        name: json.loads(data[field])
        for name in workflow.by_name
        if (field := k.result_field(Kind.RUN, name)) in data
        and saga.steps[name].state is StepState.SUCCEEDED
    }
    error = failure_of(saga)["error"]
    completed = saga.state is SagaState.COMPLETED
    return {
        "transaction_id": saga.id,
        "workflow": saga.workflow,
        "version": saga.version,
        "state": saga.state.value,
        "current_step": current_step(saga),
        "input": json.loads(data.get("input", "{}")),
        "step_results": results,
        "result": merged_result(workflow, data) if completed else None,
        "error": {**error, "step": saga.error_step or None} if error else None,
        "needs_attention": bool(saga.attention),
        "attention": list(saga.attention),
        "correlation_id": json.loads(data.get("meta", "{}")).get("correlation_id", saga.id),
        "created_at": iso(saga.created_at),
        "updated_at": iso(saga.updated_at),
        "steps": {
            name: _describe_step(run, data.get(f"p:{name}")) for name, run in saga.steps.items()
        },
    }


def _describe_step(run: StepRun, progress: str | None) -> dict[str, Any]:
    undone = run.undo_state is not UndoState.NONE
    return {
        "state": run.state.value,
        "attempts": run.work.attempt,
        "worker": run.work.worker or None,
        "started_at": iso(run.work.started_at),
        "ended_at": iso(run.work.ended_at),
        "error": _error(run.work),
        "progress": json.loads(progress) if progress else None,
        "compensation": {
            "state": run.undo_state.value,
            "attempts": run.undo.attempt,
            "error": _error(run.undo),
        }
        if undone
        else None,
    }


def _error(work: Work) -> dict[str, str] | None:
    return work.error.to_dict() if work.error else None


def current_step(saga: Saga) -> str | None:
    """The step that is being worked on, the first in definition order; None at the end."""
    if saga.state in ENDED:
        return None
    busy = {StepState.RUNNING, StepState.DISPATCHED, StepState.RETRYING, StepState.PARKED}
    undoing = {UndoState.RUNNING, UndoState.DISPATCHED, UndoState.RETRYING}
    for name, run in saga.steps.items():
        if run.undo_state in undoing or run.state in busy:
            return name
    return None


def replay(
    saga_id: str, workflow: Workflow, entries: Sequence[Entry], data: dict[str, str]
) -> list[dict[str, Any]]:
    """The log as events; a saga's own moves are found by deciding again, entry by entry."""
    start_ms = entries[0].at_ms if entries else 0
    saga = new_saga(
        saga_id,
        workflow=workflow.name,
        version=workflow.version,
        steps=tuple(workflow.by_name),
        now_ms=start_ms,
    )
    results = {
        name: json.loads(data[field])
        for name in workflow.by_name
        if (field := k.result_field(Kind.RUN, name)) in data
    }
    values = {"input": json.loads(data.get("input", "{}")), "results": results}
    events: list[dict[str, Any]] = []
    saga = replace(saga, values=values)
    for entry in entries:
        events.append(_event(entry))
        after = fold(workflow, saga, (entry,)).saga
        if after.state is not saga.state:
            moved = {"from": saga.state.value, "to": after.state.value}
            events.append(_plain_event(f"saga_{after.state}", entry.at_ms, data=moved))
        saga = after
    return events


def _event(entry: Entry) -> dict[str, Any]:
    kind = getattr(entry, "kind", None)
    prefix = {None: "", Kind.RUN: "step_", Kind.UNDO: "undo_"}[kind]
    known = {
        "at_ms",
        "type",
        "kind",
        "step",
        "attempt",
        "worker",
        "nonce",
        "retry",
        "token",
        "request",
    }
    rest = {
        name: getattr(entry, name)
        for name in entry.__dataclass_fields__
        if name not in known and getattr(entry, name) not in ("", None)
    }
    if "error" in rest:
        rest["error"] = rest["error"].to_dict()
    return _plain_event(
        f"{prefix}{entry.type}",
        entry.at_ms,
        step=getattr(entry, "step", None) or None,
        attempt=getattr(entry, "attempt", None),
        worker=getattr(entry, "worker", None) or None,
        data={name: str(v) if isinstance(v, str) else v for name, v in rest.items()},
    )


def _plain_event(
    kind: str,
    at_ms: int,
    *,
    step: str | None = None,
    attempt: int | None = None,
    worker: str | None = None,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "type": kind,
        "step": step,
        "attempt": attempt,
        "at": iso(at_ms),
        "worker": worker,
        "data": data or {},
    }
