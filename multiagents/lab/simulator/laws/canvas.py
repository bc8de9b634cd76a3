"""Which laws must hold for a saga's outcome, and for its links, errbacks and chains?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from multiagents.core.entries import Entry, Requested
from multiagents.core.states import ENDED, Action, SagaState
from multiagents.engine.dispatcher import TELLING_MS
from multiagents.lab.simulator.clocks import SET_BACK, SKEW_MS
from multiagents.lab.simulator.effects import PICKY
from multiagents.lab.simulator.laws.violations import law
from multiagents.lab.simulator.people import CANVAS
from multiagents.lab.simulator.world import World
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.state import Saga
from multiagents.saga.targets import targets_of

TOLD_MS = TELLING_MS - 2 * SKEW_MS - 5000
"""The least gap between two starts of one canvas, with differing clocks and time to start it."""


def judge_canvases(world: World, saga: Saga, log: Sequence[Entry]) -> None:
    """Each target is started or parked; a second start needs a silent first process (E12).

    Raises LawBroken.
    """
    told = world.canvases[saga.id]
    closed = saga.terminated or any(
        isinstance(entry, Requested) and entry.action is Action.RESOLVE for entry in log
    )
    completed = saga.delivered and world.ends[saga.id][0].state == SagaState.COMPLETED
    for task_id in world.owed[saga.id] - {saga.id} if saga.delivered else ():
        for target in targets_of(json.loads(CANVAS), completed=completed):
            name = f"{target.name} of {task_id}"
            parked = PICKY in name and (closed or name in " ".join(saga.attention))
            law(told.get(name) or parked, f"{name} waits forever (E12): {saga.attention}")
    if world.seen["froze"] or world.seen[SET_BACK]:
        return  # a process that wakes late may start a target that another one started meanwhile
    for name, times in told.items():
        gaps = [later - earlier for earlier, later in pairwise(times)]
        law(min(gaps, default=TOLD_MS) >= TOLD_MS, f"{name}: started at {times} (E12)")


def judge_ends(world: World, saga: Saga, *, set_back: bool) -> None:
    """All waiters get the outcome, and the same one (rule 14).  Raises LawBroken."""
    ends = world.ends[saga.id]
    for end in ends:
        law(end.state in ENDED, f"{saga.id}: delivered as {end.state}")
    law(ends or not saga.delivered, f"{saga.id}: its outcome was not delivered")
    if set_back:
        return
    law(saga.delivered or not ends, f"{saga.id}: delivered before its end")
    for end in ends[1:]:
        same = _outcome(end) == _outcome(ends[0])
        law(same, f"{saga.id}: delivered as {ends[0]}, then as {end} (rule 14)")
    untold = world.owed[saga.id] - world.told[saga.id]
    law(not untold or not saga.delivered, f"{saga.id}: {untold} wait forever (rule 14)")


def _outcome(end: SagaOutcome) -> tuple[Any, ...]:
    """The delivered outcome without the progress of the undo, which may be newer."""
    failure = {name: value for name, value in end.failure.items() if name != "undo"}
    return end.state, end.result, failure
