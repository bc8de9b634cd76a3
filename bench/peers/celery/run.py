"""How fast are a Celery chain and a Celery chord?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.harness import INPUT, RESULT_S, Begin, Guarantees, Options, Variant, Wait, main, worker

SETTINGS = (
    "prefork, {children} children; worker_prefetch_multiplier 4 (default), {acks}; Redis broker"
    " and result backend, JSON, hiredis; every result stored; fan-out as a chord"
)


@contextmanager
def arena(options: Options, app_name: str = "app") -> Iterator[Mapping[str, Begin]]:
    """A worker with its children."""
    from bench.peers.celery import tasks

    step = tasks.step if app_name == "app" else tasks.late_step
    command = ["celery", "-A", f"bench.peers.celery.tasks:{app_name}", "worker"]
    command += ["-c", str(options.concurrency), "-l", "WARNING"]
    with worker(*command, log=options.data / "celery.log"):
        yield {
            "chain10": partial(_chain, step, 10),
            "chain100": partial(_chain, step, 100),
            "fanout10": partial(_chord, step, 10),
        }


def _chain(step: Any, length: int) -> Wait:
    from celery import chain

    steps = [step.s(INPUT), *(step.s() for _ in range(length - 1))]
    return partial(chain(*steps).apply_async().get, timeout=RESULT_S)


def _chord(step: Any, width: int) -> Wait:
    from celery import chord

    return partial(chord([step.s(INPUT)] * width)(step.s()).get, timeout=RESULT_S)


VARIANTS = {
    "default": Variant(
        "Celery chain and chord",
        SETTINGS.format(children=2, acks="early acknowledgement (default)"),
        Guarantees(
            durable="no record of the chain; its rest travels in the message",
            after_sigkill="the running step and the rest of its chain are lost; prefetched messages"
            " come back after visibility_timeout (1 h)",
            compensation="none (link_error runs by hand-written code)",
        ),
        arena,
    ),
    "acks_late": Variant(
        "Celery, acks_late",
        SETTINGS.format(children=2, acks="task_acks_late and task_reject_on_worker_lost on"),
        Guarantees(
            durable="no record of the chain; its rest travels in the message",
            after_sigkill="a killed child: the step runs again at once; a killed worker: after"
            " visibility_timeout (1 h); a crash between publishing and acknowledging runs the"
            " rest of the chain twice",
            compensation="none (link_error runs by hand-written code)",
        ),
        partial(arena, app_name="late"),
    ),
}

if __name__ == "__main__":
    main("celery", ("celery", "kombu", "redis", "hiredis"), VARIANTS)
