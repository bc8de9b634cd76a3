"""After which errors is an attempt retried, and how often?

Rule 2: a step is not retried after an error that excludes a retry, or after a programmer's error.
Rule 5: a compensation is retried, but after a programmer's error three times at most.  A policy
that names errors overrides both, by the nearest class that it names.

This law uses the names of the errors in `KINDS`, not the engine's own tables.  No Redis, no clock.
"""

from __future__ import annotations

from bdb import BdbQuit
from collections import Counter
from random import Random

from multiagents.core.entries import Entry, Failed
from multiagents.core.error_names import names_of_class
from multiagents.core.exceptions import NonRetryableError, WorkerExecutionError
from multiagents.core.policies import DEFAULT_RETRY, UNDO_RETRY, RetryPolicy
from multiagents.core.states import Kind, SagaState
from multiagents.lab.simulator.laws.violations import law
from multiagents.saga.commands import SetTimer, retry_timer
from multiagents.saga.decide import Decision
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow

MOST_OF_A_MISTAKE = 3
KINDS: dict[type[Exception], tuple[bool, bool, bool]] = {
    OSError: (True, True, False),
    WorkerExecutionError: (True, True, False),
    ValueError: (False, True, False),
    KeyError: (False, True, True),
    ModuleNotFoundError: (False, True, True),
    NonRetryableError: (False, False, False),
    BdbQuit: (False, False, False),
}
"""Error -> (a step is retried, an undo is retried, it is a programmer's error)."""
_KINDS = {names_of_class(cls): kind for cls, kind in KINDS.items()}


def some_error(
    rng: Random, kind: Kind, seen: Counter[str], *, often: float = 0.6
) -> tuple[str, ...]:
    """The classes of one of these errors, or none: then this law does not judge the failure."""
    if rng.random() >= often:
        return ()
    cls = rng.choice(list(KINDS))
    if KINDS[cls][2]:
        seen[f"programmer's error in {kind}"] += 1
    return names_of_class(cls)


def judge_retry(workflow: Workflow, before: Saga, entry: Entry, decision: Decision) -> None:
    """Judge the decision after a failed attempt.  Raises LawBroken."""
    if not isinstance(entry, Failed) or entry.classes not in _KINDS:
        return
    run = before.steps.get(entry.step)
    if run is None or not run.of(entry.kind).is_held(entry.nonce):
        return
    timer = retry_timer(entry.ref)
    again = any(isinstance(each, SetTimer) and each.timer == timer for each in decision.commands)
    step, work = workflow.by_name[entry.step], decision.saga.steps[entry.step].of(entry.kind)
    own = step.retry if entry.kind is Kind.RUN else step.compensation_retry
    usual = DEFAULT_RETRY if entry.kind is Kind.RUN else UNDO_RETRY
    wanted = work.tries < _most(own or work.retry or usual, entry)
    if entry.kind is Kind.RUN:
        wanted &= before.state in (SagaState.RUNNING, SagaState.PAUSED)
    else:
        wanted &= not before.terminated
    said = f"{entry.id}: {entry.classes[0]} of try {work.tries}"
    law(again == wanted, f"{said} was {'' if again else 'not '}retried (rules 2 and 5)")


def _most(policy: RetryPolicy, failed: Failed) -> int:
    named = [name for name in failed.classes if name in (*policy.on, *policy.not_on)]
    if named:
        return policy.max_attempts if named[0] in policy.on else 0
    step, undo, mistake = _KINDS[failed.classes]
    if not (step if failed.kind is Kind.RUN else undo):
        return 0
    limit = mistake and failed.kind is Kind.UNDO
    return min(policy.max_attempts, MOST_OF_A_MISTAKE) if limit else policy.max_attempts
