"""Which workflows do the simulator and the laws use?

A workflow is any valid definition of up to seven steps, drawn from a `random.Random`.  A seed
always gives the same one.  Hypothesis can pass its own source, and shrink a failing workflow.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from multiagents.core.policies import RetryPolicy
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.workflow import Workflow

MOST_STEPS = 7
ODD_NAMES = ("end", "run", "undo", "deadline", "input", "s.1-x_", "n" * 128)
"""Names of steps: words of the engine's own fields and members, and other allowed names."""
WORKERS = ("a", "b", "c")
UNDO_WORKERS = ("undo_a", "undo_b")
INPUT = {"yes": True, "no": False}
INPUT_TEXT = json.dumps(INPUT)
RESULT = {"ok": True}
"""The result of every step; conditions read it."""


def random_workflow(
    rng: Random,
    *,
    name: str = "law",
    conditions: bool = True,
    plain: float = 0.0,
    odd: bool = False,
    naming: float = 0.0,
) -> Workflow:
    """A valid workflow; ``conditions=False`` leaves out ``when``.

    ``plain``: the share of steps and compensations that are plain Celery tasks.  ``odd``: some
    steps have `ODD_NAMES`.  ``naming``: the share of policies that name errors.
    """
    names = [f"s{index}" for index in range(rng.randint(1, MOST_STEPS))]
    if odd:
        names = [rng.choice((usual, other)) for usual, other in zip(names, ODD_NAMES, strict=False)]
    chain = rng.random() < 0.4
    # The workers of a chain share a queue, so that a process continues with the next step.
    before = {step: _dependencies(rng, names[:index], chain) for index, step in enumerate(names)}
    pivot = rng.choice(names) if rng.random() < 0.25 else None
    if pivot:
        _join_at(names, before, pivot)
    after_pivot = names[names.index(pivot) :] if pivot else []
    steps = [
        Step(
            name=step,
            worker=_plain(rng, plain, before[step]) or rng.choice(WORKERS[: 2 if chain else None]),
            depends_on=before[step],
            when=_condition(rng, before[step]) if conditions else None,
            retry=_policy(rng, naming),
            pivot=step == pivot,
            **({} if step in after_pivot else _compensation(rng, plain, naming)),
        )
        for step in names
    ]
    return Workflow(
        name=name,
        steps=tuple(steps),
        timeout_s=30.0 if rng.random() < 0.2 else None,
        parallel_undo=rng.random() < 0.4,
    )


def _dependencies(rng: Random, earlier: list[str], chain: bool) -> tuple[str, ...]:
    if chain:
        return tuple(earlier[-1:])
    if not earlier or rng.random() < 0.15:
        return ()
    chosen = rng.sample(earlier, min(len(earlier), rng.choice((1, 1, 1, 2, 3))))
    return tuple(sorted(chosen))


def _join_at(names: list[str], before: dict[str, tuple[str, ...]], pivot: str) -> None:
    """Put every step before or after the pivot (rule 7)."""
    place = names.index(pivot)
    before[pivot] = tuple(names[:place])
    for step in names[place + 1 :]:
        before[step] = tuple(sorted({*before[step], pivot}))


def _condition(rng: Random, before: tuple[str, ...]) -> str | None:
    if rng.random() < 0.75:
        return None
    common = ["input.yes", "input.no", "input.missing > 1"]
    if not before:
        return rng.choice(common)
    step = rng.choice(before)
    if not step.isidentifier():
        return rng.choice(common)
    return rng.choice([*common, f'steps.{step}.state == "succeeded"', f"steps.{step}.result.ok"])


def _policy(rng: Random, naming: float) -> RetryPolicy | None:
    if rng.random() < 0.4:
        return None
    policy = RetryPolicy(
        max_attempts=rng.randint(1, 3), backoff_s=rng.choice((0.0, 1.0)), cap_s=5.0
    )
    return _named(rng, naming, policy)


def _named(rng: Random, naming: float, policy: RetryPolicy) -> RetryPolicy:
    """The policy, perhaps with the names of errors."""
    if naming <= 0 or rng.random() >= naming:
        return policy
    on = rng.choice(((), ("KeyError",), ("Exception",), ("NonRetryableError", "LookupError")))
    not_on = rng.choice(((), ("OSError",), ("ImportError", "LeaseLost"), ("BdbQuit",)))
    return policy.model_copy(update={"on": on, "not_on": not_on})


def _plain(rng: Random, share: float, before: tuple[str, ...] = ()) -> TaskCall | None:
    """A plain task or none; its arguments fail if they read a skipped step."""
    if share <= 0 or rng.random() >= share:
        return None
    reads = before and rng.random() < 0.2 and before[0].isidentifier()
    args = (f"steps.{before[0]}.result.ok",) if reads else None
    queue = rng.choice((None, "io"))
    return TaskCall(task="p", args=args, queue=queue, timeout_s=rng.choice((3.0, 15.0)))


def _compensation(rng: Random, plain: float, naming: float) -> dict[str, Any]:
    if rng.random() < 0.25:
        return {}
    return {
        "compensation": _plain(rng, plain) or rng.choice(UNDO_WORKERS),
        "compensation_retry": _named(
            rng, naming, RetryPolicy(max_attempts=rng.randint(1, 5 if naming else 3), cap_s=5.0)
        ),
        "compensate_on_failure": rng.choice(("unknown", "unknown", "always", "never")),
    }
