"""How fast are Dramatiq's pipelines and groups?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from bench.harness import INPUT, RESULT_S, Begin, Guarantees, Options, Variant, Wait, main, worker

RESULT_MS = int(RESULT_S * 1000)


@contextmanager
def arena(options: Options) -> Iterator[Mapping[str, Begin]]:
    """Worker processes with threads."""
    command = ["dramatiq", "bench.peers.dramatiq.actors"]
    command += ["--processes", str(options.concurrency), "--threads", "8", "--skip-logging"]
    with worker(*command, log=options.data / "dramatiq.log"):
        yield {
            "chain10": partial(_pipeline, 10),
            "chain100": partial(_pipeline, 100),
            "fanout10": partial(_group, 10),
        }


def _pipeline(length: int) -> Wait:
    from dramatiq import pipeline

    from bench.peers.dramatiq.actors import noop

    first, rest = noop.message(INPUT), [noop.message() for _ in range(length - 1)]
    return partial(pipeline([first, *rest]).run().get_result, block=True, timeout=RESULT_MS)


def _group(width: int) -> Wait:
    from dramatiq import group

    from bench.peers.dramatiq.actors import noop

    join = noop.message(INPUT)
    fan = group(noop.message(INPUT) for _ in range(width))
    fan.add_completion_callback(join)
    fan.run()
    return partial(join.get_result, block=True, timeout=RESULT_MS)


VARIANTS = {
    "default": Variant(
        "Dramatiq pipeline and group",
        "2 processes of 8 threads (defaults on 2 cores), default prefetch (2 messages a thread);"
        " Redis broker, Results middleware with Redis backend on every step, hiredis; fan-out as"
        " a group with a completion callback",
        Guarantees(
            durable="no record of the pipeline; its rest travels in the message",
            after_sigkill="messages are acknowledged after the step: they come back once the"
            " process was silent for heartbeat_timeout (60 s), and steps run again",
            compensation="none",
        ),
        arena,
    ),
}

if __name__ == "__main__":
    main("dramatiq", ("dramatiq", "redis", "hiredis"), VARIANTS)
