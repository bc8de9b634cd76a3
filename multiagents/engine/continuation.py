"""Which commit follows from a decision, and with which step does the process continue?

`decide` says what the saga does.  This file plans the commit: the outbox, the messages that the
commit itself publishes, and the step that this process claims.

A process that ends an attempt has a free slot.  It continues with a step that just became ready on
its queue, or with a withheld step of a fan-out (E14).  If it may not continue, it publishes one
withheld step, so that a fan-out loses no slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from multiagents.core.clock import Clock
from multiagents.core.entries import Claimed, Entry
from multiagents.core.fields import outbox_field
from multiagents.core.settings import Settings
from multiagents.engine.claims import Claims, Continuation, Terms
from multiagents.engine.commit_plan import plan_of
from multiagents.engine.dispatcher import CHUNK, MOST_LEAVING, Dispatcher
from multiagents.engine.plain_tasks import Begun
from multiagents.saga.commands import Dispatch
from multiagents.saga.decide import Decision, fold
from multiagents.saga.outcome import fields_of
from multiagents.saga.state import Saga
from multiagents.storage.commit import Commit
from multiagents.storage.keys import SagaKeys
from multiagents.workflows.workflow import Workflow


@dataclass(slots=True)
class Move:
    """A decision on its way to a commit."""

    workflow: Workflow
    decision: Decision
    plan: Commit
    begun: tuple[Claimed, Terms] | None = None
    """The claim with which the committing process continues."""
    waiting: list[Dispatch] = field(default_factory=list)
    """Withheld steps, one of which it publishes: another process takes its place."""
    entries: tuple[Entry, ...] = ()
    """The entries of the decision."""

    def holds(self, saga: Saga) -> bool:
        """Whether the attempt that this commit began is still under way in a later state."""
        if self.begun is None:
            return False
        claim = self.begun[0]
        return saga.steps[claim.step].of(claim.kind).is_held(claim.nonce)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a decision builds on: a saga at a position of its log ("" = its end)."""

    keys: SagaKeys
    workflow: Workflow
    saga: Saga
    cursor: str = ""
    data: Mapping[str, str | None] | None = None
    """The data hash, where it is at hand."""


@dataclass(slots=True)
class Planner:
    """Makes moves."""

    settings: Settings
    clock: Clock
    claims: Claims
    dispatcher: Dispatcher
    nonce: Callable[[], str]

    def move(
        self, ground: Ground, entries: Iterable[Entry], slot: Continuation | None = None
    ) -> Move:
        """Decide over entries; ``slot``: of the process that reports one of them."""
        decided = tuple(entries)
        move = self._move(ground, fold(ground.workflow, ground.saga, decided), slot)
        move.entries = decided
        return move

    def _move(self, ground: Ground, decision: Decision, slot: Continuation | None) -> Move:
        workflow = ground.workflow
        if slot is None or not self.settings.continuation:
            return self._leaving(ground, decision, [])
        ready = self.claims.next_ready(workflow, decision, slot)
        waiting: list[Dispatch] = []
        if ready is None and self.dispatcher.holds_back(workflow, slot.queue):
            most = 1 if slot.allowed else MOST_LEAVING
            last = slot.done.step
            waiting = self.claims.waiting(workflow, decision.saga, last, slot.queue, most=most)
        following = ready or next(iter(waiting), None)
        if following is None or not slot.allowed:
            return self._leaving(ground, decision, waiting)
        return self._going_on(ground, decision, following, slot)

    def _leaving(self, ground: Ground, decision: Decision, waiting: list[Dispatch]) -> Move:
        """The commit publishes all its commands; this process continues with none."""
        decision, begun = self._begin_plain(ground, decision)
        plan = self._plan(ground, decision)
        for each in begun:
            each.put_into(plan, ground.keys.id)
        if plan.outbox:
            self.dispatcher.enclose(ground.keys, ground.workflow, plan)
        return Move(ground.workflow, decision, plan, waiting=waiting)

    def _going_on(
        self, ground: Ground, decision: Decision, following: Dispatch, slot: Continuation
    ) -> Move:
        """The commit claims the step with which this process continues."""
        claim, terms = self.claims.begin_here(ground.workflow, following, slot)
        after = fold(ground.workflow, decision.saga, (claim,))
        rest = tuple(each for each in decision.commands if each is not following)
        after = Decision(after.saga, rest, decision.changed | after.changed)
        plan = self._plan(ground, after)
        if len(rest) == len(decision.commands):
            plan.taken.append(outbox_field(following.ref))
        self.claims.plan_claim(plan, ground.keys.id, claim, terms)
        if plan.outbox:
            self.dispatcher.enclose(ground.keys, ground.workflow, plan)
        return Move(ground.workflow, after, plan, (claim, terms))

    def _begin_plain(self, ground: Ground, decision: Decision) -> tuple[Decision, list[Begun]]:
        """Claim the plain tasks that the commit itself can publish."""
        if ground.data is None:
            return decision, []
        found = [
            self.dispatcher.plain.begin(
                ground.keys, ground.workflow, decision.saga, command, ground.data
            )
            for command in decision.to_begin[:CHUNK]
        ]
        begun = [each for each in found if each is not None]
        if not begun:
            return decision, []
        after = fold(ground.workflow, decision.saga, [each.entry for each in begun])
        sent = {each.command for each in begun}
        rest = tuple(command for command in decision.commands if command not in sent)
        return Decision(after.saga, rest, decision.changed | after.changed), begun

    def _plan(self, ground: Ground, decision: Decision) -> Commit:
        plan = plan_of(
            ground.saga,
            decision,
            version=self.nonce(),
            cursor=ground.cursor,
            now_ms=self.clock.now_ms(),
            retention_ms=self.settings.retention_ms,
        )
        if decision.end is decision.saga.state:  # else a sweep must find the first outcome
            plan.outcome = fields_of(ground.workflow, decision.end)
        return plan
