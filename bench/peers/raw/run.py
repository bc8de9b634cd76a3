"""What is the upper limit of one Python process with one Redis?

This peer uses neither Celery nor the engine.  It claims a step under a lease.  One script writes
the result, the log, the due set and the next step.  ``list``: each step comes from a list (three
round trips per step).  ``continue``: the script that commits a step claims the next one (one round
trip per step).  It is not a product: it has no retry, no sweeper and no compensation.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis

from bench.harness import INPUT, OUTPUT, RESULT_S, Begin, Guarantees, Options, Variant, Wait, main

LEASE_MS = 15_000
QUEUE, DUE = "raw:queue", "raw:due"
ENDED, NOTHING = -1, -2
"""The answers of commit.lua that are not a step."""


class Process:
    """Client and worker in one process: it starts sagas and runs every listed step."""

    def __init__(self, url: str, *, goes_on: bool) -> None:
        self.client = redis.Redis.from_url(url, decode_responses=True)
        self.goes_on = goes_on
        self.ended: set[str] = set()
        self._start = self._script("start")
        self._claim = self._script("claim")
        self._commit = self._script("commit")

    def begin(self, steps: int, first: int = 1) -> Wait:
        """Record a saga whose ``first`` steps run at the same time."""
        saga = uuid.uuid4().hex
        keys = [f"raw:{saga}", f"raw:{saga}:log", DUE, QUEUE]
        self._start(keys=keys, args=[saga, steps, first, json.dumps(INPUT), _due_ms()])
        return partial(self._work_until, saga)

    def _work_until(self, saga: str) -> dict[str, int]:
        while saga not in self.ended:
            found: Any = self.client.brpop([QUEUE], timeout=RESULT_S)
            if found is None:
                raise TimeoutError(f"saga {saga} has no step in the list for {RESULT_S:.0f} s")
            owner, _, step = found[1].partition(":")
            self._do(owner, int(step))
        return OUTPUT

    def _do(self, saga: str, step: int) -> None:
        nonce = uuid.uuid4().hex
        context = self._claim(keys=[f"raw:{saga}", DUE], args=[saga, step, nonce, _due_ms()])
        if context is None:
            return
        json.loads(context)
        while step >= 0:
            following = uuid.uuid4().hex if self.goes_on else ""
            step = self._finish(saga, step, nonce, following)
            nonce = following
        if step == ENDED:
            self.ended.add(saga)

    def _finish(self, saga: str, step: int, nonce: str, following: str) -> int:
        keys = [f"raw:{saga}", f"raw:{saga}:log", DUE, QUEUE]
        args = [saga, step, nonce, json.dumps(OUTPUT), _due_ms(), following]
        answer = self._commit(keys=keys, args=args)
        if answer is None:
            raise RuntimeError(f"step {step} of saga {saga} is held by another process")
        return int(answer)

    def _script(self, name: str) -> Callable[..., Any]:
        return self.client.register_script((Path(__file__).parent / f"{name}.lua").read_text())


def _due_ms() -> int:
    return int(time.time() * 1000) + LEASE_MS


@contextmanager
def arena(options: Options, *, goes_on: bool) -> Iterator[Mapping[str, Begin]]:
    """One process, this one."""
    process = Process(options.redis, goes_on=goes_on)
    try:
        yield {
            "chain10": partial(process.begin, 10),
            "chain100": partial(process.begin, 100),
            "fanout10": partial(process.begin, 11, first=10),
        }
    finally:
        process.client.close()


GUARANTEES = Guarantees(
    durable="after each step (appendonly everysec)",
    after_sigkill="a lease is on record, but nothing looks at it",
    compensation="none",
)

VARIANTS = {
    "list": Variant(
        "raw Redis through a list, redis-py",
        "one process, redis-py with hiredis; BRPOP, claim script, commit script per step",
        GUARANTEES,
        partial(arena, goes_on=False),
    ),
    "continue": Variant(
        "raw Redis in one process, redis-py",
        "one process, redis-py with hiredis; one script per step commits it and claims the next",
        GUARANTEES,
        partial(arena, goes_on=True),
    ),
}

if __name__ == "__main__":
    main("raw", ("redis", "hiredis"), VARIANTS)
