"""How fast is celery-saga?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.harness import INPUT, RESULT_S, Begin, Guarantees, Options, Variant, Wait, main, worker

POLL_S = 0.01
"""The interval at which results are polled; the default of 0.5 s would dominate the figures."""


@contextmanager
def arena(options: Options) -> Iterator[Mapping[str, Begin]]:
    """A worker with its children."""
    from bench.peers.celery_saga.tasks import chain, fan

    command = ["celery", "-A", "bench.peers.celery_saga.tasks:app", "worker"]
    command += ["-c", str(options.concurrency), "-l", "WARNING"]
    with worker(*command, log=options.data / "celery_saga.log"):
        yield {
            "chain10": partial(_begin, chain(10)),
            "chain100": partial(_begin, chain(100)),
            "fanout10": partial(_begin, fan(10)),
        }


def _begin(saga: Any) -> Wait:
    return partial(saga.run(**INPUT).get, timeout=RESULT_S, interval=POLL_S)


VARIANTS = {
    "default": Variant(
        "celery-saga",
        "Celery as above (prefork, 2 children, defaults); RedisSagaBackend; results polled every"
        " 10 ms instead of 500 ms; steps without compensations; fan-out by add_parallel",
        Guarantees(
            durable="state saved in Redis before and after each step, whole and without a compare:"
            " parallel steps overwrite each other's records",
            after_sigkill="nothing resumes a saga: one whose worker died stays `running`; a killed"
            " child compensates what was recorded as done",
            compensation="yes, in reverse, as a Celery chain; it is not resumed after a crash",
        ),
        arena,
    ),
}

if __name__ == "__main__":
    main("celery_saga", ("celery-saga", "celery", "kombu", "redis", "hiredis"), VARIANTS)
