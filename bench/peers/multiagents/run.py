"""How fast are this package's sagas?

The peer runs in the runner's environment, where the package is installed, and uses only its public
API.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from bench.harness import INPUT, RESULT_S, Begin, Guarantees, Options, Variant, Wait, main, worker

IMPORTS = "bench.peers.multiagents.steps"


@contextmanager
def arena(options: Options, *, continuation: bool = True) -> Iterator[Mapping[str, Begin]]:
    """A worker with its children."""
    os.environ["MULTIAGENTS_REDIS_URL"] = options.redis
    os.environ["MULTIAGENTS_IMPORTS"] = IMPORTS
    os.environ["MULTIAGENTS_CONTINUATION"] = str(continuation).lower()
    command = ["celery", "-A", "multiagents", "worker", "-Q", "io"]
    command += ["-c", str(options.concurrency), "-l", "WARNING"]
    with worker(*command, log=options.data / "multiagents.log"):
        import bench.peers.multiagents.steps  # noqa: F401 - registers the workflows here too

        yield {name: partial(_begin, f"bench_{name}") for name in NAMES}


NAMES = ("chain10", "chain100", "fanout10")


def _begin(workflow: str) -> Wait:
    from multiagents import start_saga

    return partial(start_saga.delay(workflow, INPUT).get, timeout=RESULT_S)


GUARANTEES = Guarantees(
    durable="every decision in Redis before it is acted on (appendonly everysec)",
    after_sigkill="the running step is tried again elsewhere once its lease (15 s) is over; done"
    " steps are not repeated",
    compensation="yes, in reverse, retried, resumed after a crash",
)
SHAPE = "prefork, 2 children, default settings, hiredis; start_saga.delay by name and result.get"

VARIANTS = {
    "default": Variant("multiagents", SHAPE, GUARANTEES, arena),
    "by_message": Variant(
        "multiagents, each step a message",
        f"MULTIAGENTS_CONTINUATION=false; {SHAPE}",
        GUARANTEES,
        partial(arena, continuation=False),
    ),
}

if __name__ == "__main__":
    main("multiagents", ("multiagents", "celery", "kombu", "redis", "hiredis"), VARIANTS)
