"""Which laws must hold for each decision over a saga?

`SagaJudge` judges a history decision by decision, with `AttemptLaws` for attempts.  `judge_end`
judges its final state.  Hypothesis and the simulator use the same laws.  They follow from
docs/reference/rules.md and a ledger of effects, not from the code of `decide`.

No Redis, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Lost,
    Requested,
    Succeeded,
    TimerDue,
)
from multiagents.core.states import (
    ENDED,
    STEP_BUSY,
    UNDO_BUSY,
    FailureEffect,
    Kind,
    SagaState,
    StepState,
    UndoState,
)
from multiagents.core.states import Action as Ask
from multiagents.lab.simulator.laws.attempt import AttemptLaws, settled
from multiagents.lab.simulator.laws.end import WorkerEffect as WorkerEffect
from multiagents.lab.simulator.laws.end import has_come_to_rest as has_come_to_rest
from multiagents.lab.simulator.laws.end import has_dead_letters as has_dead_letters
from multiagents.lab.simulator.laws.end import judge_end as judge_end
from multiagents.lab.simulator.laws.retries import judge_retry
from multiagents.lab.simulator.laws.violations import LawBroken as LawBroken
from multiagents.lab.simulator.laws.violations import law as law
from multiagents.saga.commands import (
    Adopt,
    ClearTimer,
    Command,
    Deliver,
    Dispatch,
    SetTimer,
    TellAgain,
    Withdraw,
)
from multiagents.saga.decide import Decision, decide
from multiagents.saga.state import Saga
from multiagents.saga.transitions import SAGA_MOVES
from multiagents.workflows.workflow import Workflow

_PAST = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})


class SagaJudge:
    """Judges decisions in the order of the log."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.delivered = 0
        self._claimed: set[AttemptRef] = set()
        self._pivot: set[str] = set()
        self._entries: set[str] = set()
        self._attempts = AttemptLaws(workflow)

    def decide(self, saga: Saga, entry: Entry) -> Decision:
        """The decision of `decide`, after its judgement.  Raises LawBroken."""
        decision = decide(self.workflow, saga, entry, entry.at_ms)
        law(entry.id not in self._entries, f"{entry.id} is in the log twice")
        self._entries.add(entry.id)
        self._note(entry)
        self._moves(saga, entry, decision)
        for command in _standing(decision.commands):
            if isinstance(command, Dispatch):
                self._dispatch(saga, command, decision.saga)
        self._commands(saga, entry, decision)
        self._steps(saga, decision)
        self._repeated(entry, decision)
        self._attempts.judge(saga, entry, decision)
        judge_retry(self.workflow, saga, entry, decision)
        return decision

    def _note(self, entry: Entry) -> None:
        if isinstance(entry, Claimed):
            self._claimed.add(entry.ref)
        pivot = self.workflow.pivot
        if pivot is None or getattr(entry, "step", "") != pivot.name:
            return
        if isinstance(entry, Claimed):
            self._pivot.add(entry.nonce)
        elif isinstance(entry, Failed) and entry.effect is FailureEffect.CLEAN:
            self._pivot.discard(entry.nonce)

    def _moves(self, before: Saga, entry: Entry, decision: Decision) -> None:
        old, new = before.state, decision.saga.state
        if before.error is not None and not before.halting:
            law(decision.saga.error == before.error, "the first error did not stay (rule 11)")
        if old is new:
            return
        law(_leads(old, new), f"{old} -> {new} by {entry.id}")
        if old in ENDED:
            late = isinstance(entry, Succeeded | Failed | Lost)
            law(late or isinstance(entry, Requested), f"an ended saga moved: {old} -> {new}")

    def _commands(self, before: Saga, entry: Entry, decision: Decision) -> None:
        saga, commands = decision.saga, _standing(decision.commands)
        ends = sum(isinstance(command, Deliver) for command in commands)
        self.delivered += ends
        law(self.delivered <= 1, "delivered twice (rule 14)")
        law((self.delivered == 1) == saga.delivered, "an outcome is delivered at the first end")
        if saga.state in ENDED:
            law(saga.delivered, "an end without a delivery")
            terminates = isinstance(entry, Requested) and entry.action is Ask.TERMINATE
            allowed = (Adopt, ClearTimer, Deliver, TellAgain, *([Withdraw] if terminates else []))
            law(all(isinstance(c, allowed) for c in commands), f"after the end: {commands}")
        if before.state is SagaState.PAUSED and saga.state is SagaState.PAUSED:
            law(not any(isinstance(c, Dispatch) for c in commands), "paused, but dispatches")

    def _dispatch(self, before: Saga, command: Dispatch, saga: Saga) -> None:
        step, kind = saga.steps[command.step], command.kind
        law(step.of(kind).attempt == command.attempt, f"{command}: not the attempt on record")
        law(command.ref not in self._claimed, f"{command}: this attempt was claimed before")
        if kind is Kind.UNDO:
            self._dispatch_undo(before, command.step, saga)
            return
        law(saga.state is SagaState.RUNNING, f"{command} in a saga that is {saga.state}")
        law(before.steps[command.step].run.state not in _PAST, f"{command}: it has ended")
        for name in self.workflow.by_name[command.step].depends_on:
            law(saga.steps[name].run.state in _PAST, f"{command} before {name!r} has ended")

    def _dispatch_undo(self, before: Saga, name: str, saga: Saga) -> None:
        law(self.workflow.by_name[name].compensation, f"undo of {name!r}, which has none")
        law(not self._pivot, f"undo of {name!r} after the pivot was claimed (rule 7)")
        law(saga.state is SagaState.COMPENSATING, f"undo of {name!r} while {saga.state}")
        busy = [n for n, step in saga.steps.items() if step.run.state in STEP_BUSY]
        law(not busy, f"undo of {name!r} before {busy} settled (rule 4)")
        undoing = [n for n, s in saga.steps.items() if s.undo.state in UNDO_BUSY and n != name]
        # An undo that began before a late effect of another step appeared only continues.
        begun = before.steps[name].undo.state is UndoState.RETRYING
        others = () if begun else (n for n in saga.steps if n != name)
        waiting = [n for n in others if _awaits_undo(self.workflow, saga, n)]
        if self.workflow.parallel_undo:
            for other in waiting if begun else (*undoing, *waiting):
                ancestors = self.workflow.ancestors(other)
                law(name not in ancestors, f"undo of {name!r} before that of {other!r}")
            return
        law(not undoing, f"undo of {name!r} while {undoing} is being undone (rule 4)")
        for other in waiting:
            law(
                name not in self.workflow.ancestors(other),
                f"undo of {name!r} before that of {other!r}, which came after it",
            )
            later = saga.steps[other].order < saga.steps[name].order
            law(later, f"undo of {name!r} before that of {other!r}, which ended later (rule 4)")

    def _steps(self, before: Saga, decision: Decision) -> None:
        saga = decision.saga
        changed = {name for name, step in saga.steps.items() if step != before.steps[name]}
        law(changed <= decision.changed, f"changed, but not named as changed: {changed}")
        if saga.state in {SagaState.RUNNING, SagaState.PAUSED, SagaState.COMPLETED}:
            open_steps = sum(step.run.state not in _PAST for step in saga.steps.values())
            law(saga.open_steps == open_steps, f"{saga.open_steps} open, in fact {open_steps}")
        if saga.state is SagaState.COMPLETED:
            law(not saga.open_steps, "completed with open steps")
        for name, step in saga.steps.items():
            if before.steps[name].run.state is StepState.SUCCEEDED:
                now = step.run.state
                law(now is StepState.SUCCEEDED, f"{name!r} succeeded, but is {now}")

    def _repeated(self, entry: Entry, decision: Decision) -> None:
        if isinstance(entry, Succeeded | Failed | Lost | TimerDue):
            again = decide(self.workflow, decision.saga, entry, entry.at_ms)
            law(not again.commands, f"{entry.id} repeated gives {again.commands}")
            law(settled(again.saga) == settled(decision.saga), f"{entry.type} counts twice")


def _leads(old: SagaState, new: SagaState) -> bool:
    """Whether legal moves lead from old to new: one entry may cause up to three in a row."""
    reached = {old}
    for _ in range(3):
        reached |= {after for before, after in SAGA_MOVES if before in reached}
    return new in reached


def _standing(commands: Sequence[Command]) -> list[Command]:
    """The commands that no later command of the same decision takes back."""
    taken_back = {c.ref for c in commands if isinstance(c, Withdraw)}
    cleared = {c.timer for c in commands if isinstance(c, ClearTimer)}
    return [
        c
        for c in commands
        if not (isinstance(c, Dispatch) and c.ref in taken_back)
        and not (isinstance(c, SetTimer) and c.timer in cleared)
    ]


def _awaits_undo(workflow: Workflow, saga: Saga, name: str) -> bool:
    step, spec = saga.steps[name], workflow.by_name[name]
    if spec.compensation is None or step.undo.state is not UndoState.NONE:
        return False
    if step.run.state is StepState.SUCCEEDED or step.done:
        return True
    if spec.compensate_on_failure == "always":
        return bool(step.run.nonce)
    return step.unknown and spec.compensate_on_failure == "unknown"


def replayed(workflow: Workflow, saga: Saga, entries: Iterable[Entry]) -> Saga:
    """The fold of a log, with every decision judged.  Raises LawBroken."""
    watch = SagaJudge(workflow)
    for entry in entries:
        saga = watch.decide(saga, entry).saga
    return saga
