"""How does a worker process reach the coordinator?

`StoreEngine` is `core.ports.Engine` over the sync edge; `hosting` hands it to `worker_sdk`.
"""

from __future__ import annotations

from typing import Any

import structlog

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import Clock
from multiagents.core.entries import Failed, Report, Succeeded
from multiagents.core.error_names import is_repeated
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.fields import result_field
from multiagents.core.ports import Assignment, AtWork, Unclaimed, Verdict
from multiagents.core.states import Kind, SagaState
from multiagents.engine.catalog import Catalog
from multiagents.engine.claims import Continuation
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.ended_steps import states_of
from multiagents.saga.state import Saga
from multiagents.saga.verdicts import Given, is_judged, judged
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.workflows.step import worker_name
from multiagents.workflows.workflow import Workflow

log = structlog.get_logger(__name__)


class StoreEngine:
    """Claims, reports and renews through Redis."""

    def __init__(
        self, coordinator: Coordinator, edge: Edge, clock: Clock, catalog: Catalog
    ) -> None:
        self._coordinator = coordinator
        self._repository = coordinator.repository
        self._slots = coordinator.slots
        self._catalog = catalog
        self._edge = edge
        self._clock = clock

    def claim(
        self,
        saga_id: str,
        ref: AttemptRef,
        *,
        delivery: str,
        queue: str,
        version: str = "",
    ) -> Assignment | None:
        """Begin an attempt; None if it is no longer to be done."""
        flow = self._slots.claim(saga_id, ref, delivery=delivery, queue=queue, version=version)
        return self._edge.run(flow)

    def unclaimed(self, saga_id: str, ref: AttemptRef) -> Unclaimed:
        """Why `claim` has just returned None."""
        return self._edge.run(self._unclaimed(saga_id, ref))

    async def _unclaimed(self, saga_id: str, ref: AttemptRef) -> Unclaimed:
        try:
            saga, _ = await self._repository.current(saga_id)
        except UnknownSaga:
            return Unclaimed.WITHDRAWN
        run = saga.steps.get(ref.step)
        if run is not None and run.of(ref.kind).has_taken(ref.attempt):
            return Unclaimed.TAKEN
        comes = run is not None and ref.attempt > run.of(ref.kind).attempt
        return Unclaimed.LATER if comes and saga.state is SagaState.PAUSED else Unclaimed.WITHDRAWN

    def at_work(self, saga_id: str) -> dict[str, AtWork]:
        """The attempt that each Celery delivery of a saga runs: delivery -> attempt."""
        return self._edge.run(self._at_work(saga_id))

    async def _at_work(self, saga_id: str) -> dict[str, AtWork]:
        work = await store.work(self._repository.keys(saga_id))
        claims = list(store.claims(saga_id, work))
        if not claims:
            return {}
        saga, workflow = await self._repository.current(saga_id)
        found = [(holder, _at_work(saga, workflow, held)) for holder, held in claims]
        return dict(sorted(found, key=lambda each: each[1].since_ms))

    def succeed(self, done: Assignment, result: str, *, go_on: bool) -> Assignment | None:
        """Report a result; returns the next attempt, if it is claimed."""
        return self._edge.run(self._succeed(done, result, go_on))

    async def _succeed(self, done: Assignment, result: str, go_on: bool) -> Assignment | None:
        returned = Succeeded(self._clock.now_ms(), *done.ref, done.nonce)
        report: Report = returned
        workflow = await self._repository.workflow(done.saga_id, done.version)
        if is_judged(workflow, returned):
            keys = self._repository.keys(done.saga_id)
            states = await states_of(keys, workflow, done.step, done.results)
            given = Given(done.input, done.results, states)
            report = judged(workflow, returned, result, given)
        return await self._report(done, report, result, go_on)

    def fail(self, done: Assignment, verdict: Verdict, *, go_on: bool) -> Assignment | None:
        """Report a failure; likewise."""
        return self._edge.run(self._report(done, self._failed(done, verdict), None, go_on))

    def _failed(self, done: Assignment | store.Attempt, verdict: Verdict) -> Failed:
        retryable = verdict.retryable
        if verdict.classes:  # a plain task's kind is known only here
            retryable = is_repeated(verdict.classes, done.kind)
        return Failed(
            self._clock.now_ms(),
            *done.ref,
            done.nonce,
            error=verdict.failure,
            effect=verdict.effect,
            retryable=retryable,
            retry_after_ms=verdict.retry_after_ms,
            running=verdict.running,
            part=verdict.part,
            counts=verdict.counts,
            classes=verdict.classes,
        )

    async def _report(
        self, done: Assignment, entry: Report, result: str | None, go_on: bool
    ) -> Assignment | None:
        going = Continuation(done.queue, done.delivery, done, result, allowed=go_on)
        return await self._coordinator.report(done.saga_id, entry, result=result, go_on=going)

    def renew(self, held: list[Assignment], notes: dict[str, dict[str, str]]) -> list[Assignment]:
        """Renew leases in one round trip; return those that are lost.

        A lease whose server does not answer does not count as lost.  Raises the store's error if no
        server answers.
        """
        calls = [self._slots.renewal(one, notes.get(one.nonce, {})) for one in held]
        replies = self._edge.many(calls)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if errors and len(errors) == len(replies):
            raise errors[0]
        if errors:
            log.warning("could not renew leases", count=len(errors), error=str(errors[0]))
        return [one for one, renewed in zip(held, replies, strict=True) if not renewed]

    def count_late(self) -> None:
        """Count a late renewal, which `doctor` shows (E9)."""
        self._edge.run(self._catalog.count_late(self._coordinator.claims.hostname))

    def report_loop(self, report: dict[str, Any]) -> None:
        """Publish that an event loop of this process is blocked, for `doctor` and `explain`."""
        self._edge.run(self._catalog.report_loop(self._coordinator.claims.hostname, report))

    def fail_delivery(
        self,
        saga_id: str,
        delivery: str,
        verdict: Verdict,
        *,
        decide: bool,
        attempts: list[store.Attempt] | None = None,
    ) -> bool:
        """Report the failure of all attempts that a Celery delivery holds; False if it holds none.

        Without ``decide`` it is only logged, and a sweep decides at once (E14, E20).
        ``attempts``: these, if they are known.
        """
        flow = self._coordinator.log_failure(
            saga_id, delivery, lambda held: self._failed(held, verdict), attempts=attempts
        )
        found = self._edge.run(flow)
        if found and decide:
            self._edge.run(self._coordinator.coordinate(saga_id))
        return found

    def fence(self, saga_id: str, task_id: str, version: str = "") -> list[store.Attempt]:
        """The attempts of a plain task that is about to run; none: it must not run (E13).

        ``version`` of its saga's definition, if its message has it.
        """
        return self._edge.run(self._slots.fence(saga_id, task_id, version))

    def plain_ended(
        self,
        saga_id: str,
        task_id: str,
        result: str,
        *,
        attempts: list[store.Attempt] | None = None,
    ) -> None:
        """Report the result (JSON) of a plain task.

        ``attempts``: those that it holds, if they are known.
        """
        self._edge.run(self._plain_ended(saga_id, task_id, result, attempts))

    async def _plain_ended(
        self, saga_id: str, task_id: str, result: str, attempts: list[store.Attempt] | None
    ) -> None:
        if attempts is None:
            attempts = await self._slots.owed(saga_id, task_id)
        for held in attempts:
            entry = Succeeded(self._clock.now_ms(), *held.ref, held.nonce)
            report = await self._judged(saga_id, entry, result)
            await self._coordinator.report(saga_id, report, result=result)

    async def _judged(self, saga_id: str, returned: Succeeded, result: str) -> Report:
        workflow = self._repository.remembered(saga_id)
        if workflow is None:
            workflow = (await self._repository.current(saga_id))[1]
        if not is_judged(workflow, returned):
            return returned
        keys = self._repository.keys(saga_id)
        data = await store.data(keys)
        results = {
            step: data[field]
            for step in workflow.ancestors(returned.step)
            if (field := result_field(Kind.RUN, step)) in data
        }
        states = await states_of(keys, workflow, returned.step, results)
        return judged(workflow, returned, result, Given(data.get("input", "{}"), results, states))


def _at_work(saga: Saga, workflow: Workflow, held: store.Attempt) -> AtWork:
    target = workflow.by_name[held.step].target(held.kind)
    since_ms = saga.steps[held.step].of(held.kind).started_at
    return AtWork(*held.ref, worker_name(target), since_ms)
