"""In which world does `decide` decide?

One saga with its log and pending entries, its outbox, claims, timers, and lost attempts that go on.
A `Random` makes every choice; Hypothesis passes its own. A commit decides over all pending entries
and executes the commands, as the store does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from multiagents.core.attempt_ref import AttemptRef, OfAttempt
from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Requested,
    Started,
    Succeeded,
    TimerDue,
    Unroutable,
    Withdrawn,
)
from multiagents.core.policies import RetryPolicy
from multiagents.core.states import Action as Ask
from multiagents.core.states import FailureEffect, Kind
from multiagents.lab.simulator.laws.retries import some_error
from multiagents.lab.simulator.laws.saga import LawBroken, SagaJudge, WorkerEffect, judge_end, law
from multiagents.lab.simulator.workflows import INPUT, RESULT
from multiagents.saga.commands import Adopt, ClearTimer, Deliver, Dispatch, SetTimer, Withdraw
from multiagents.saga.decide import fold
from multiagents.saga.state import Saga, new_saga
from multiagents.workflows.workflow import Workflow

BOOM = Failure("Boom", "boom")
LATE = {"ok": False}
"""The result of a lost attempt, which conditions distinguish from `RESULT`."""
Action = Callable[[], None]


@dataclass(eq=False)
class Holder(OfAttempt):
    """A worker with an attempt. ``lost``: its lease has expired, perhaps unknown to it."""

    kind: Kind
    step: str
    attempt: int
    nonce: str
    acted: bool = False
    lost: bool = False


class World:
    """One saga and all possible events."""

    def __init__(self, workflow: Workflow, rng: Random) -> None:
        self.workflow = workflow
        self.rng = rng
        self.now_ms = 1_000_000
        self._blank = new_saga(
            "saga",
            workflow=workflow.name,
            version=workflow.version,
            steps=tuple(workflow.by_name),
            now_ms=self.now_ms,
        )
        self.claims: dict[tuple[Kind, str], str] = {}
        self.results: dict[str, Any] = {}
        self.late: dict[str, Any] = {}
        self.saga: Saga = self.blank
        self.log: list[Entry] = []
        self.pending: list[Entry] = []
        self.outbox: set[AttemptRef] = set()
        self.timers: dict[str, int] = {}
        self.holders: list[Holder] = []
        self.ledger: dict[str, list[WorkerEffect]] = defaultdict(list)
        self.watch = SagaJudge(workflow)
        self._ids: set[str] = set()
        self._serial = 0
        self.append(Started(self.now_ms))
        self.commit()

    # ---- the store ----

    @property
    def blank(self) -> Saga:
        """The saga before its first decision, with what conditions can read now."""
        results, late = dict(self.results), dict(self.late)
        return replace(self._blank, values={"input": INPUT, "results": results, "late": late})

    def append(self, entry: Entry) -> None:
        """Append to the log, unless the id is known (E4)."""
        if entry.id not in self._ids:
            self._ids.add(entry.id)
            self.log.append(entry)
            self.pending.append(entry)
            self._keep_result(entry)

    def _keep_result(self, entry: Entry) -> None:
        """Keep the claim holder's result, and put any other aside."""
        if isinstance(entry, Claimed):
            self.claims[entry.kind, entry.step] = entry.nonce
        if not isinstance(entry, Succeeded | Failed | Lost):
            return
        current = self.claims.get((entry.kind, entry.step)) == entry.nonce
        if current:
            del self.claims[entry.kind, entry.step]
        if isinstance(entry, Succeeded) and entry.kind is Kind.RUN:
            self.results |= {entry.step: RESULT} if current else {}
            self.late |= {} if current else {entry.nonce: LATE}

    def commit(self) -> None:
        """Decide over all pending entries, then over the entries that the commit has written."""
        while self.pending:
            entries, self.pending = self.pending, []
            before = self.saga = replace(self.saga, values=self.blank.values)
            whole = fold(self.workflow, before, entries)
            for entry in entries:
                self.saga = self.watch.decide(self.saga, entry).saga
            law(whole.saga == self.saga, "a fold is not its decisions one by one")
            for command in whole.commands:
                self._carry_out(command)

    def _carry_out(self, command: object) -> None:
        match command:
            case Dispatch(ref=ref):
                law(not any(o[:2] == ref[:2] for o in self.outbox), f"{command} twice")
                self.outbox.add(ref)
            case Withdraw(ref=ref):
                if ref in self.outbox:
                    self.outbox.remove(ref)
                    self.append(Withdrawn(self.now_ms, *ref, self._fresh()))
            case SetTimer(timer, at_ms):
                self.timers[timer] = at_ms
            case ClearTimer(timer):
                self.timers.pop(timer, None)
            case Deliver(_):
                pass
            case Adopt(step, nonce):
                law(nonce in self.late, f"{command}: there is none")
                law(step not in self.results, f"{command}: it has one")
                self.results[step] = self.late[nonce]
            case _:
                raise LawBroken(f"unknown command {command}")

    def _fresh(self) -> str:
        self._serial += 1
        return f"{self._serial:04x}"

    # ---- what can happen ----

    def live(self, *, asks: tuple[Ask, ...] = ()) -> None:
        """One random event happens, and perhaps a decision."""
        actions = self._actions()
        if self.outbox and self.rng.random() < 0.04:
            self._nobody_knows(min(self.outbox))
        elif asks and (not actions or self.rng.random() < 0.12):
            self.ask(self._choose(asks), self.rng.choice(("", *self.workflow.by_name)))
        elif actions:
            self.rng.choice(actions)()
        self.now_ms += self.rng.choice((0, 1, 400))
        if self.rng.random() < 0.7:
            self.commit()

    def settle(self) -> None:
        """Every worker returns and succeeds, and every timer comes due, until nothing is left."""
        self.commit()
        for _ in range(2000):
            if self.holders:
                self._succeed(self.holders[0])
            elif self.outbox:
                self._claim(min(self.outbox))
            elif self.timers:
                self._fire(min(self.timers, key=lambda name: self.timers[name]))
            else:
                judge_end(self.workflow, self.saga, self.log, self.ledger)
                return
            self.commit()
        raise LawBroken("the world does not settle")

    def ask(self, command: Ask, step: str = "") -> None:
        """An operator's action."""
        self.append(Requested(self.now_ms, command, self._fresh(), step=step))

    def _choose(self, asks: tuple[Ask, ...]) -> Ask:
        """Any event, the saga's end less often."""
        chosen = self.rng.choice(asks)
        return self.rng.choice(asks) if chosen is Ask.TERMINATE else chosen

    def _actions(self) -> list[Action]:
        found: list[Action] = []
        for what in sorted(self.outbox):
            found += [lambda what=what: self._claim(what)] * 3  # type: ignore[misc]  # loop value
        for holder in self.holders:
            found += [lambda h=holder, a=act: a(h) for act in self._acts(holder)]  # type: ignore[misc]
        found += [lambda name=name: self._fire(name) for name in self.timers]  # type: ignore[misc]
        return found

    def _acts(self, holder: Holder) -> list[Callable[[Holder], None]]:
        silence = self._die if holder.lost else self._report_lost
        often = self._overrun if self.rng.random() < 0.2 else self._act
        return [self._succeed, self._succeed, self._fail, often, silence]

    def _claim(self, ref: AttemptRef) -> None:
        self.outbox.remove(ref)
        holder = Holder(*ref, self._fresh())
        self.holders.append(holder)
        retry = RetryPolicy(max_attempts=2) if self.rng.random() < 0.3 else None
        self.append(Claimed(self.now_ms, *ref, holder.nonce, "w", retry))

    def _act(self, holder: Holder) -> None:
        holder.acted = True
        self.ledger[holder.step].append(WorkerEffect(holder.kind, holder.nonce))

    def _succeed(self, holder: Holder) -> None:
        if not holder.acted:
            self._act(holder)
        self.holders.remove(holder)
        row = (*holder.ref, holder.nonce)
        self.append(Succeeded(self.now_ms, *row))

    def _fail(self, holder: Holder) -> None:
        self.holders.remove(holder)
        clean = not holder.acted and self.rng.random() < 0.5
        row = (*holder.ref, holder.nonce)
        failed = Failed(
            self.now_ms,
            *row,
            BOOM,
            effect=FailureEffect.CLEAN if clean else FailureEffect.UNKNOWN,
            retryable=self.rng.random() < 0.6,
            retry_after_ms=self.rng.choice((None, None, 0, 5000)),
            classes=some_error(self.rng, holder.kind, Counter()),
        )
        self.append(failed)

    def _report_lost(self, holder: Holder) -> None:
        holder.lost = True
        self.append(Lost(self.now_ms, *holder.ref, holder.nonce))

    def _overrun(self, holder: Holder) -> None:
        """The attempt is given up by its own process, which cannot stop it."""
        holder.lost = True
        row = (*holder.ref, holder.nonce)
        self.append(Failed(self.now_ms, *row, BOOM, running=True))

    def _die(self, holder: Holder) -> None:
        self.holders.remove(holder)

    def _nobody_knows(self, ref: AttemptRef) -> None:
        self.outbox.remove(ref)
        self.append(Unroutable(self.now_ms, *ref, Failure("UnknownWorker", "nobody")))

    def _fire(self, timer: str) -> None:
        """Timers come due by the sweeper's clock, which may be 3 s off."""
        due_ms = self.timers.pop(timer)
        self.now_ms = max(self.now_ms, due_ms)
        self.append(TimerDue(self.now_ms + self.rng.choice((0, 0, 3000)), timer))
