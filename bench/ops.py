"""How much load can one server handle?

    python -m bench.ops                     # all parts, about six minutes
    python -m bench.ops --only steps

The bench starts its own server and workers.  It has these parts:

- ``steps``: round trips, commands, bytes and server CPU per step of several shapes, from
  differences of INFO while real workers run them.
- ``memory``: the memory of a saga in flight and after its end.
- ``connections``: the number of a worker's connections.
- ``idle``: the calls of idle workers.
- ``server``: the cost of the sweepers' and the catalog's calls.
- ``crowd``: the load of 1,000 connections that read the due set in turn.

A step's cost is the difference between sagas of eleven steps and of one step, divided by ten.  The
rest is the cost of a start and an end.  The values are tiny: add your own bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import redis
from celery import shared_task

from multiagents import WorkflowBuilder, task, worker
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard
from multiagents.testing.sandbox import sandbox
from multiagents.workflows.workflow import Workflow

SAGAS = 300
ROUNDS = 3
"""The round with the least CPU counts, because other programs use the machine, too."""
MODULE = "bench.ops"
NOBODY = "ops_nobody"
TIMEOUT_S = 60.0
POLL_S = 0.05
IDLE_S = 10.0
WORKERS = 1000
LOOKS_S = 1100
"""The reads per second of that many sweepers, see `bench.herd`."""
SETTLE_S = 4.0
QUIET = ("--without-gossip", "--without-mingle")
FLAGS: dict[str, tuple[str, ...]] = {
    "Celery's defaults": (),
    " ".join(QUIET): QUIET,
    "--without-heartbeat, too": (*QUIET, "--without-heartbeat"),
}


@worker("ops_noop")
def noop(context: dict[str, Any]) -> dict[str, Any]:
    """A worker function of the package."""
    return {"ok": 1}


@shared_task(name="ops.plain")  # type: ignore[untyped-decorator]  # celery has no types
def plain(context: dict[str, Any]) -> dict[str, Any]:
    """A plain Celery task."""
    return {"ok": 1}


def chain(steps: int, *, last_queue: str | None = None) -> Workflow:
    """A chain of steps."""
    builder = WorkflowBuilder(f"ops_chain_{steps}")
    for number in range(steps):
        builder.add_step(
            f"s{number}", "ops_noop", queue=last_queue if number == steps - 1 else None
        )
    return builder.build()


def plain_chain(steps: int) -> Workflow:
    """A chain of plain tasks."""
    builder = WorkflowBuilder(f"ops_plain_{steps}")
    for number in range(steps):
        builder.add_step(f"s{number}", task("ops.plain", queue="io", timeout_s=60))
    return builder.build()


def fan(steps: int) -> Workflow:
    """Steps at the same time, and one that joins them."""
    builder = WorkflowBuilder(f"ops_fan_{steps}")
    builder.parallel([(f"p{number}", "ops_noop") for number in range(steps)])
    builder.add_step("join", "ops_noop")
    return builder.build()


@dataclass(frozen=True, slots=True)
class Cost:
    """The server's work, in all or per step."""

    round_trips: float
    """Reads from sockets: a pipeline counts once."""
    scripts: float
    commands: float
    """Commands inside scripts count, too."""
    bytes_in: float
    bytes_out: float
    cpu_us: float
    aof_bytes: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(Cost)))

    def shown(self) -> dict[str, float]:
        """The rounded values by name."""
        return {f.name: round(getattr(self, f.name), 1) for f in fields(Cost)}

    def __truediv__(self, count: float) -> Cost:
        return Cost(*(getattr(self, f.name) / count for f in fields(Cost)))


def cost(client: redis.Redis) -> Cost:
    """The server's work since its start."""
    info: dict[str, Any] = {}
    for section in ("stats", "cpu", "persistence", "commandstats"):
        info |= client.info(section)
    return Cost(
        round_trips=info["total_reads_processed"],
        scripts=sum(
            info.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval")
        ),
        commands=sum(row["calls"] for name, row in info.items() if name.startswith("cmdstat_")),
        bytes_in=info["total_net_input_bytes"],
        bytes_out=info["total_net_output_bytes"],
        cpu_us=(info["used_cpu_user"] + info["used_cpu_sys"]) * 1e6,
        aof_bytes=info["aof_current_size"],
    )


def until(condition: Callable[[], bool], *, poll_s: float = POLL_S) -> None:
    """Return when the condition is true.  Raises TimeoutError after `TIMEOUT_S`."""
    ends_at = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > ends_at:
            raise TimeoutError(f"the workers are not at rest after {TIMEOUT_S:g} s")
        time.sleep(poll_s)


def spent(client: redis.Redis, workflow: Workflow) -> Cost:
    """The cost of one saga among many, from its start to its delivered outcome."""
    rounds = [_spent(client, workflow) for _ in range(ROUNDS)]
    return min(rounds, key=lambda found: found.cpu_us)


def _spent(client: redis.Redis, workflow: Workflow) -> Cost:
    from multiagents import start_saga

    done = Shard().state("completed")
    before, ended = cost(client), int(client.zcard(done))
    for _ in range(SAGAS):
        start_saga.delay(workflow, {"n": 1})
    until(lambda: int(client.zcard(done)) >= ended + SAGAS)
    return (cost(client) - before) / SAGAS


def steps(url: str) -> Iterator[dict[str, Any]]:
    """The cost of a step, by shape, and of a start with an end."""
    with redis.Redis.from_url(url) as client, running(client, "steps", "-c", "2", *QUIET):
        _spent(client, chain(1))  # afterwards connections, scripts and definitions exist
        one = spent(client, chain(1))
        continued = (spent(client, chain(11)) - one) / 10
        branch = (spent(client, fan(20)) - spent(client, fan(10))) / 10
        alone = spent(client, plain_chain(1))
        by_message = (spent(client, plain_chain(11)) - alone) / 10
    found = {
        "a step that is continued": continued,
        "a plain task as a step": by_message,
        "a branch of a fan-out": branch,
        "start and end of a saga": one - continued,
    }
    for what, each in found.items():
        yield {"what": what, **each.shown(), "one core a second": round(1e6 / each.cpu_us)}


def memory(url: str) -> Iterator[dict[str, Any]]:
    """Bytes in Redis of a saga of ten steps."""
    from multiagents import start_saga

    with redis.Redis.from_url(url) as client, running(client, "memory", "-c", "2", *QUIET):
        _spent(client, chain(10))
        before = used(client)
        _spent(client, chain(10))
        ended = round((used(client) - before) / SAGAS)
        yield {"what": "a saga of 10 steps, ended, with its stored outcome", "bytes": ended}
        workflow, before = chain(10, last_queue=NOBODY), used(client)
        for _ in range(SAGAS):
            start_saga.delay(workflow, {"n": 1})
        until(lambda: int(client.llen(NOBODY)) >= SAGAS)
        messages = int(client.memory_usage(NOBODY, samples=0) or 0)
        in_flight = round((used(client) - before - messages) / SAGAS)
        yield {"what": "a saga of 10 steps, at its last", "bytes": in_flight}
        yield {"what": "the message of a step that waits", "bytes": round(messages / SAGAS)}


def used(client: redis.Redis) -> int:
    """Bytes in use."""
    return int(client.info("memory")["used_memory"])


def server(url: str, *, times: int = 5_000) -> Iterator[dict[str, Any]]:
    """The server's cost of single calls, as the mean of ``times`` calls."""
    with redis.Redis.from_url(url) as client:
        client.flushall()  # no worker runs any more
        edge, due, now_ms = Edge(url), Shard().due, 1_700_000_000_000
        client.zadd(due, {f"d|x{number}": now_ms + 10_000 for number in range(10_000)})
        look = store.first_due(Shard())
        empty = store.sweep(Shard(), now_ms, limit=100, lease_ms=15_000)
        yield single(client, "a look at the due set", lambda: edge.execute(look), times)
        yield single(client, "a sweep that brings nothing", lambda: edge.execute(empty), times)
        fleet = Shard().catalog("fleet")
        workers = {f"worker_name_{number:02}": "io" for number in range(20)}
        about = json.dumps({"at_ms": now_ms, "queues": ["io", "llm"], "workers": workers})
        names = {
            f"celery@multiagents-worker-7d9f8b6c5-{number:05}": about for number in range(1000)
        }
        client.hset(fleet, mapping=names)
        yield single(client, "reading a fleet of 1,000", lambda: client.hgetall(fleet), times // 50)
        edge.close()


def single(client: redis.Redis, what: str, call: Callable[[], Any], times: int) -> dict[str, Any]:
    """The CPU and bytes of one call."""
    found = min((repeated(client, call, times) for _ in range(5)), key=lambda each: each.cpu_us)
    return {
        "what": what,
        "cpu_us": round(found.cpu_us, 1),
        "bytes_in": round(found.bytes_in),
        "bytes_out": round(found.bytes_out),
    }


def idle(url: str) -> Iterator[dict[str, Any]]:
    """The cost of idle workers per second, for all of them together."""
    with redis.Redis.from_url(url) as client:
        yield {"what": "none", **a_second(client)}
        for how, flags in FLAGS.items():
            for count in (1, 4):
                with ExitStack() as stack:
                    for number in range(count):
                        stack.enter_context(running(client, f"idle{number}", "-P", "solo", *flags))
                    yield {"what": f"{count} with {how}", **a_second(client)}


def a_second(client: redis.Redis) -> dict[str, float]:
    """The cost of an idle second."""
    time.sleep(SETTLE_S)
    before = cost(client)
    time.sleep(IDLE_S)
    return ((cost(client) - before) / IDLE_S).shown()


def repeated(client: redis.Redis, call: Callable[[], Any], times: int) -> Cost:
    """The mean cost of one call."""
    before = cost(client)
    for _ in range(times):
        call()
    return (cost(client) - before) / times


def crowd(url: str) -> Iterator[dict[str, Any]]:
    """The server's load by reads of the due set, at the rate of an idle fleet."""
    with redis.Redis.from_url(url) as client, ExitStack() as stack:
        before = used(client)
        alone = a_second(client)["cpu_us"]
        edges = [Edge(url) for _ in range(WORKERS)]
        look = store.first_due(Shard())
        for edge in edges:
            stack.callback(edge.close)
            edge.execute(look)
        yield {"what": "bytes of a connection", "found": round((used(client) - before) / WORKERS)}
        cpu_us, began, count = cost(client).cpu_us, time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < IDLE_S:
            edges[count % WORKERS].execute(look)
            count += 1
            time.sleep(max(0.0, began + count / LOOKS_S - time.perf_counter()))
        found = (cost(client).cpu_us - cpu_us) / passed - alone
        yield {"what": "looks a second", "found": round(count / passed)}
        yield {"what": "CPU for them, % of a core", "found": round(found / 1e4, 2)}


@contextmanager
def running(client: redis.Redis, name: str, *flags: str, imports: str = MODULE) -> Iterator[None]:
    """A ready worker, which stops with the block."""
    hostname = f"{name}@ops"
    command = [sys.executable, "-m", "celery", "-A", "multiagents", "worker", "-l", "WARNING"]
    process = subprocess.Popen(
        [*command, "-Q", "llm,io", "-n", hostname, *flags],
        env={**os.environ, "MULTIAGENTS_IMPORTS": imports},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        until(lambda: bool(client.hexists(Shard().catalog("fleet"), hostname)))
        yield
    finally:
        process.terminate()
        process.wait(30)


def connections(url: str) -> Iterator[dict[str, Any]]:
    """The number of a worker's connections, after all its slots have had work."""
    pools = (("prefork", 2), ("prefork", 6), ("threads", 2), ("threads", 6), ("solo", 1))
    with redis.Redis.from_url(url) as client:
        for pool, slots in pools:
            with running(client, f"{pool}{slots}", "-P", pool, "-c", str(slots), *QUIET):
                _spent(client, fan(10))
                with_worker = connected(client)
            yield {"what": f"{pool} -c {slots}", "connections": with_worker - connected(client)}


def connected(client: redis.Redis) -> int:
    """The number of open connections, when it no longer changes."""
    counts: list[int] = []
    while len(counts) < 3 or len(set(counts[-3:])) > 1:
        time.sleep(0.3)
        counts.append(int(client.info("clients")["connected_clients"]))
    return counts[-1]


PARTS = {part.__name__: part for part in (steps, memory, connections, idle, server, crowd)}


def show(rows: Iterator[dict[str, Any]]) -> None:
    """Print a Markdown table, a line at a time."""
    for number, one in enumerate(rows):
        if number == 0:
            print(f"\n| {' | '.join(one)} |\n{'|---' * len(one)}|")
        cells = (f"{cell:,}" if isinstance(cell, int | float) else cell for cell in one.values())
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure part by part, on one server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args().only
    with sandbox(worker=False, stub=False) as url:
        with redis.Redis.from_url(url) as client:
            # The size of the file then grows by exactly the written bytes.
            client.config_set("auto-aof-rewrite-percentage", 0)
        for name in chosen:
            show(PARTS[name](url))


if __name__ == "__main__":
    main()
