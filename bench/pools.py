"""Which pool fits which work?

    python -m bench.pools                   # about two minutes

The bench starts sagas of one step at once.  One kind of step waits 0.2 s for the network, as an
``async def`` and as a plain function.  Another computes for 20 ms.  The table has steps per second,
and the memory of the worker with all its processes, with shared pages counted once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import psutil  # type: ignore[import-untyped]  # psutil has no types
import redis

from bench.ops import running, show, until
from multiagents import WorkflowBuilder, worker
from multiagents.storage.keys import Shard
from multiagents.testing.sandbox import sandbox
from multiagents.workflows.workflow import Workflow

WAIT_S = 0.2
BUSY_S = 0.02
SAGAS = 32
ROUNDS = 2
"""The faster round counts, because other programs use the machine, too."""
POOLS = (("prefork", 2), ("prefork", 8), ("threads", 2), ("threads", 32), ("solo", 1))


@worker("pools_async")
async def wait_async(context: dict[str, Any]) -> dict[str, Any]:
    """Wait as an async client does."""
    await asyncio.sleep(WAIT_S)
    return {"ok": 1}


@worker("pools_plain")
def wait_plain(context: dict[str, Any]) -> dict[str, Any]:
    """Wait as a blocking client does."""
    time.sleep(WAIT_S)
    return {"ok": 1}


@worker("pools_busy", kind="cpu")
def busy(context: dict[str, Any]) -> dict[str, Any]:
    """Compute while holding Python's global lock."""
    ends_at = time.thread_time() + BUSY_S
    while time.thread_time() < ends_at:
        pass
    return {"ok": 1}


def one_step(name: str) -> Workflow:
    """A workflow of one step."""
    return WorkflowBuilder(f"one_{name}").add_step("only", name).build()


def rate(client: redis.Redis, workflow: Workflow) -> float:
    """Steps per second."""
    from multiagents import start_saga

    done = Shard().state("completed")
    ended, began = int(client.zcard(done)), time.perf_counter()
    for _ in range(SAGAS):
        start_saga.delay(workflow, {"n": 1})
    until(lambda: int(client.zcard(done)) >= ended + SAGAS, poll_s=0.01)
    return round(SAGAS / (time.perf_counter() - began), 1)


def memory_mib() -> float:
    """The memory in MiB of the worker that this process has started, with all its descendants."""
    workers = [
        each for each in psutil.Process().children(recursive=True) if "worker" in each.cmdline()
    ]
    return round(float(sum(each.memory_full_info().pss for each in workers)) / 2**20)


def pools(url: str) -> Iterator[dict[str, Any]]:
    """Each pool in turn."""
    kinds = {"async wait": "pools_async", "plain wait": "pools_plain", "busy": "pools_busy"}
    with redis.Redis.from_url(url) as client:
        for pool, slots in POOLS:
            flags = ("-P", pool, "-c", str(slots), "--without-gossip", "--without-mingle")
            name = f"{pool}{slots}"
            with running(client, name, *flags, imports="bench.pools"):
                rate(client, one_step("pools_async"))
                found = {
                    kind: max(rate(client, one_step(work)) for _ in range(ROUNDS))
                    for kind, work in kinds.items()
                }
                yield {"what": f"{pool} -c {slots}", **found, "MiB": memory_mib()}


def main() -> None:
    """Measure on a server of its own."""
    with sandbox(worker=False, stub=False) as url:
        show(pools(url))


if __name__ == "__main__":
    main()
