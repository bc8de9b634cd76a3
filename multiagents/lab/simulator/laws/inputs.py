"""Which inputs must each attempt get?

`World.begun` has the assignments of every worker function in a history.  A saga that was set back
is not judged, because the inputs of its attempts may be lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from multiagents.core.entries import Claimed, Entry, Succeeded
from multiagents.core.fields import result_field
from multiagents.core.ports import Assignment
from multiagents.core.states import Kind
from multiagents.lab.simulator.laws.violations import law
from multiagents.lab.simulator.store import Store
from multiagents.saga.state import Saga
from multiagents.storage.replies import hash_of
from multiagents.workflows.workflow import Workflow


def judge_given(
    kept: Store, workflow: Workflow, saga: Saga, log: Sequence[Entry], begun: Sequence[Assignment]
) -> None:
    """Judge the inputs of a saga's attempts.  Raises LawBroken."""
    data = hash_of(kept.client_of(saga.id).hgetall(kept.keys(saga.id).data))
    for held in begun:
        fields = {name: result_field(Kind.RUN, name) for name in workflow.ancestors(held.step)}
        stored = {name: data[own] for name, own in fields.items() if own in data}
        law(held.results == stored, f"{held.step!r} was given {held.results}, not {stored}")
    _judge_own_results(log, [held for held in begun if held.kind is Kind.UNDO])
    _judge_keys(saga, begun)


def _judge_own_results(log: Sequence[Entry], undos: Sequence[Assignment]) -> None:
    """An undo gets its step's result if the step reported it before, however late."""
    returned: set[str] = set()
    known: set[str] = set()
    informed = {held.nonce for held in undos if held.step_result is not None}
    given = {held.nonce for held in undos}
    for entry in log:
        if isinstance(entry, Claimed):
            known.add(entry.nonce)
            if entry.nonce in given and entry.step in returned:
                law(entry.nonce in informed, f"undo of {entry.step!r} was not given its result")
        elif isinstance(entry, Succeeded) and entry.kind is Kind.RUN and entry.nonce in known:
            returned.add(entry.step)


def _judge_keys(saga: Saga, begun: Sequence[Assignment]) -> None:
    """E8: one key for all attempts of a step, another for its undo, a new one for a fresh undo."""
    keys: defaultdict[tuple[Kind, str], set[str]] = defaultdict(set)
    for held in begun:
        keys[held.kind, held.step].add(held.idempotency_key)
        keys[Kind.RUN, held.step].add(held.step_idempotency_key)
    for (kind, step), found in keys.items():
        most = saga.steps[step].generation + 1 if kind is Kind.UNDO else 1
        law(len(found) <= most, f"{kind} of {step!r} had the idempotency keys {sorted(found)} (E8)")
    every = [key for found in keys.values() for key in found]
    law(len(every) == len(set(every)), "two steps, or a step and its undo, share a key (E8)")
