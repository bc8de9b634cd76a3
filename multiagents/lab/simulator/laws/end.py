"""Which laws must hold for a saga at rest?

It has ended, is paused, or waits for an operator.  The real effects (the ledger, which the engine
does not see) fit its state.

A server that lost its last second (E5) may have lost claims.  The engine has no record of such an
attempt.  If it reports, the report is recorded and asks for attention (`AttemptLaws`); its effect
is no part of the saga.  So for a saga that was set back, these laws judge only effects whose claims
are in its log.  For any other saga, each effect belongs to a claim in the log (rule 1).

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
    """A real effect of a worker; the ledger keeps their order."""

    kind: Kind
    nonce: str


def has_dead_letters(saga: Saga) -> bool:
    """Whether a step or an undo waits for an operator."""
    return any(
        step.run.state is StepState.PARKED or step.undo.state is UndoState.PARKED
        for step in saga.steps.values()
    )


def is_kept(saga: Saga) -> bool:
    """Whether retention waits for an operator: for a dead letter, or a canvas that was refused."""
    untold = any(" cannot be told: " in note for note in saga.attention)
    return has_dead_letters(saga) or (untold and not saga.terminated)


def has_come_to_rest(saga: Saga) -> bool:
    """Whether only an operator can move the saga."""
    return saga.state in ENDED or saga.state is SagaState.PAUSED or has_dead_letters(saga)


def judge_end(
    workflow: Workflow,
    saga: Saga,
    log: Sequence[Entry],
    ledger: Mapping[str, Sequence[WorkerEffect]],
    *,
    set_back: bool = False,
) -> None:
    """Judge a saga at rest.  Raises LawBroken.

    ``ledger``: the real effects of each step, in order.  ``set_back``: its server lost its last
    second at some time.
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
            # A plain task's return counts for its claim, even if the server lost that claim.
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
    """Completed minus undone is 0, after each open attempt has reported (E6).

    ``effects``: each with whether its attempt reported a success.
    """
    step, spec = saga.steps[name], workflow.by_name[name]
    if spec.compensation is None or step.undo.state in _HELD:
        return
    silent = {nonce for kind, _, nonce in step.lost if kind == Kind.RUN}
    never = spec.compensate_on_failure == "never"
    known = [e.kind for e, done in effects if done or not (never or e.nonce in silent)]
    law(not known or known[-1] is Kind.UNDO, f"{saga.state}, but an effect of {name!r} is left")
