"""What must hold of a saga to which nothing more will happen?

It has ended, is paused, or waits for a person; and what was really done (the ledger, which the
engine does not see) fits its end.

A server that lost its last second (E5) may have lost claims.  Of an attempt whose claim is lost
nobody knows: if it reports, that is recorded and asks for attention (`AttemptLaws`); its effect,
if it leaves one, is no part of the saga.  So of a saga that was set back only the effects of claims
that still stand in its log are judged, and by the same laws as ever.  Of any other saga every
effect belongs to a claim in the log (rule 1).

No Redis, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multiagents.core.entries import Claimed, Entry, Succeeded
from multiagents.core.states import ENDED, Kind, SagaState, StepState, UndoState
from multiagents.lab.simulator.laws.violations import law
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow

_HELD = frozenset({UndoState.PARKED, UndoState.SKIPPED, UndoState.RESOLVED})
_BAD_ENDS = ENDED - {SagaState.COMPLETED}


@dataclass(frozen=True, slots=True)
class WorkerEffect:
    """Something that a worker did to the world, in the order in which it was done."""

    kind: Kind
    nonce: str


def has_dead_letters(saga: Saga) -> bool:
    """Whether a step or an undo waits for a person."""
    return any(
        step.run.state is StepState.PARKED or step.undo.state is UndoState.PARKED
        for step in saga.steps.values()
    )


def is_kept(saga: Saga) -> bool:
    """Whether retention waits for a person: a dead letter, or what could not be told of its end."""
    untold = any(" cannot be told: " in note for note in saga.attention)
    return has_dead_letters(saga) or (untold and not saga.terminated)


def has_come_to_rest(saga: Saga) -> bool:
    """Whether nothing but a person can move the saga."""
    return saga.state in ENDED or saga.state is SagaState.PAUSED or has_dead_letters(saga)


def judge_end(
    workflow: Workflow,
    saga: Saga,
    log: Sequence[Entry],
    ledger: Mapping[str, Sequence[WorkerEffect]],
    *,
    set_back: bool = False,
) -> None:
    """Judge a saga to which nothing more will happen.  Raises LawBroken.

    ``ledger``: for each step what was really done, in order.  ``set_back``: its server lost its
    last second at some time.
    """
    law(has_come_to_rest(saga), f"stuck in {saga.state}: {_where(saga)}")
    law(not saga.halting, f"still waits to {saga.halting}")
    claimed = {entry.nonce for entry in log if isinstance(entry, Claimed)}
    done = {entry.nonce for entry in log if isinstance(entry, Succeeded)}
    for name, effects in ledger.items():
        known = [effect for effect in effects if effect.nonce in claimed]
        law(set_back or len(known) == len(effects), f"{name!r} was done without a claim (rule 1)")
        if saga.terminated:
            continue
        if saga.state is SagaState.COMPLETED:
            law(all(e.kind is Kind.RUN for e in known), f"completed, but {name!r} was undone")
            # A plain task's return counts for the claim of its day, though that one was forgotten.
            _judge_kept(saga, name, effects if set_back else known)
        elif saga.state in _BAD_ENDS:
            _judge_undone(workflow, saga, name, [(e, e.nonce in done) for e in known])


def _where(saga: Saga) -> str:
    return ", ".join(f"{n} {step.run.state}/{step.undo.state}" for n, step in saga.steps.items())


def _judge_kept(saga: Saga, name: str, effects: Sequence[WorkerEffect]) -> None:
    step = saga.steps[name]
    if step.run.state is StepState.SUCCEEDED and step.unknown is False and step.run.nonce:
        law(effects, f"{name!r} succeeded without an effect")


def _judge_undone(
    workflow: Workflow, saga: Saga, name: str, effects: Sequence[tuple[WorkerEffect, bool]]
) -> None:
    """Completed minus undone is 0, once what may still report has reported (E6).

    ``effects``: each with whether its attempt was reported as a success.
    """
    step, spec = saga.steps[name], workflow.by_name[name]
    if spec.compensation is None or step.undo.state in _HELD:
        return
    silent = {nonce for kind, _, nonce in step.lost if kind == Kind.RUN}
    never = spec.compensate_on_failure == "never"
    known = [e.kind for e, done in effects if done or not (never or e.nonce in silent)]
    law(not known or known[-1] is Kind.UNDO, f"{saga.state}, but an effect of {name!r} is left")
