"""Which work do both sides do?

A shape is the same work in two forms: a workflow, and a canvas of bare Celery tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery, chain, chord

from multiagents.lab.bench.tasks import BARE_JOIN, BARE_NOOP, PLAIN_NOOP
from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.workflow import Workflow

GIVEN = {"n": 1}
"""The input of every saga, and of the first task of every canvas."""
WORKER = "bench_noop"


@dataclass(frozen=True, slots=True)
class Shape:
    """A number of steps, as a saga and as a canvas."""

    steps: int
    workflow: Workflow
    canvas: Callable[[Celery], Any]
    """Makes one canvas, ready for ``apply_async()``."""


def chain_of(steps: int, *, plain: bool = False) -> Shape:
    """Steps in a chain.  ``plain``: the saga's steps are plain Celery tasks, too."""
    builder = WorkflowBuilder(f"bench_{'plain' if plain else 'chain'}_{steps}")
    for number in range(steps):
        builder.add_step(f"s{number}", task(PLAIN_NOOP) if plain else WORKER)

    def canvas(app: Celery) -> Any:
        noop = app.tasks[BARE_NOOP]
        return chain(noop.s(GIVEN), *(noop.s() for _ in range(steps - 1)))

    return Shape(steps, builder.build(), canvas)


def fan_of(width: int) -> Shape:
    """``width`` steps at the same time, and one that waits for all of them."""
    builder = WorkflowBuilder(f"bench_fan_{width}")
    builder.parallel([(f"p{number}", WORKER) for number in range(width)])
    builder.add_step("join", WORKER)

    def canvas(app: Celery) -> Any:
        noop, join = app.tasks[BARE_NOOP], app.tasks[BARE_JOIN]
        return chord([noop.s(GIVEN) for _ in range(width)], join.s())

    return Shape(width + 1, builder.build(), canvas)


def held_before_last(steps: int, queue: str) -> Workflow:
    """A chain whose last step waits on a queue."""
    builder = WorkflowBuilder(f"bench_held_{steps}")
    for number in range(steps - 1):
        builder.add_step(f"s{number}", WORKER)
    return builder.add_step("last", WORKER, queue=queue).build()


def waiting_for_a_timer() -> Workflow:
    """A saga whose only step fails, and whose retry is long after the bench."""
    return WorkflowBuilder("bench_waiting").add_step("fail", "bench_fail").build()


def burning() -> Workflow:
    """A saga whose only step burns processor time, for the seconds in its input."""
    return WorkflowBuilder("bench_burning").add_step("burn", "bench_burn").build()


def held_once() -> Workflow:
    """A saga whose only step ends at its second attempt."""
    return WorkflowBuilder("bench_held_once").add_step("hold", "bench_hold").build()
