"""Does a full server (`OOM command not allowed`) stop sagas without breaking any?

It refuses what would need memory and still answers; after it is given room, all goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from multiagents.cli.doctor import checks
from multiagents.core.exceptions import NotWritable
from multiagents.core.states import SagaState
from multiagents.devserver.server import EmbeddedServer
from multiagents.operations.explain.saga import UNDECIDED_MS, Situation, explanation
from multiagents.orchestrator.orchestrator import Orchestrator
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call
from multiagents.storage.client import Edge, WritesRefused, refusal
from multiagents.storage.health import ServerHealth
from multiagents.workflows.registry import registered
from multiagents.workflows.step import Step
from tests.support.command_line import cli
from tests.support.kill_rig import Rig, second_starts
from tests.support.office import open_office
from tests.support.one_process import KEYS, SAGA, Bench
from tests.support.processes import wait_for

REASON = "takes no writes: it is full (its maxmemory is used up)"
TAKING_FIRST = {"claim", "drop", "purge"}
"""Scripts that take something away before they write: those are done whole."""


@contextmanager
def full(client: Any) -> Iterator[None]:
    """The server has no memory left inside the block."""
    client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


# ---- no script is done by half ----


class Crammed(Edge):
    """Runs each script on a full server first, and again where it was refused."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.settings.redis_url, perform=bench.perform)
        self.refused: set[str] = set()

    def execute(self, effect: Any) -> Any:
        if not isinstance(effect, Call):
            return super().execute(effect)
        before = self.dump()
        self.client.config_set("maxmemory", "1")
        try:
            return super().execute(effect)
        except WritesRefused:
            assert self.dump() == before, effect.script
            self.refused.add(effect.script)
        finally:
            self.client.config_set("maxmemory", "0")
        return super().execute(effect)

    def dump(self) -> dict[bytes, Any]:
        """All keys with their values, by which the refused write would show."""
        return {key: self.client.dump(key) for key in self.client.scan_iter()}


def test_a_refused_script_has_changed_nothing(redis_url: str) -> None:
    """Each script of a saga that fails and is undone: refused whole at first, then done."""
    bench = Bench(redis_url)
    edge = bench.edge = Crammed(bench)
    step: Any = Step(name="x", worker="a", compensation="undo")
    bench.start(step, Step(name="y", worker="a", depends_on=("x",)))
    following = bench.succeed(bench.claim())
    assert following is not None
    keys = bench.coordinator.slots.renewal(following, {"p:y": "1"})
    assert edge.execute(keys) is True
    bench.fail(following)
    bench.succeed(bench.claim(), allowed=False)
    for _ in range(3):
        bench.sweep()
    view = edge.execute(store.load(KEYS))
    assert (bench.ends[:1], view.head[0]) == ([SagaState.COMPENSATED], SagaState.COMPENSATED)
    assert edge.refused >= {"start", "advance", "publish", "renew", "sweep"}
    assert not edge.refused & TAKING_FIRST
    bench.clock.advance(bench.settings.retention_s + 1)
    bench.sweep()
    assert not edge.client.exists(KEYS.saga)
    edge.close()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MISCONF Errors writing to the AOF file: No space left on device", "cannot write to its"),
        ("NOREPLICAS Not enough good replicas to write.", "too few of its replicas"),
        ("Error running script: -OOM command not allowed when used memory", "it is full"),
        ("Error running script: -READONLY You can't write against a read only", "is a replica"),
    ],
)
def test_other_refusals_are_told_too(text: str, reason: str) -> None:
    """They are recognized by their first word; with Redis 6.2, by the one in a script's error."""
    found = refusal("redis://:s3cret@host:1/0", redis.ResponseError(text))
    assert isinstance(found, WritesRefused)
    assert reason in str(found)
    assert "s3cret" not in str(found)


def test_another_error_of_a_script_is_no_refusal() -> None:
    """It is a fault, and must not be tried again for ever."""
    error = redis.ResponseError("ERR wrong number of arguments for OOM command")
    assert refusal("redis://host:1/0", error) is error


# ---- sagas on a full server ----


@pytest.mark.processes
def test_sagas_pause_on_a_full_server_and_go_on_after_it(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """Those at work, that retry and that wait; a start is refused and stores nothing."""
    rig = Rig(server.url, 9, tmp_path)
    with rig.worker("-c", "3") as worker:
        worker.wait_ready()
        held = rig.start("kp_long", gates={"1": "up"})
        rig.wait_effect(held, "run", step="two")
        waiting = [rig.start(name) for name in ("kp_flakes", "kp_breaks")]
        with full(rig.redis):
            keys = rig.redis.dbsize()
            with pytest.raises(NotWritable, match=r"takes no writes.*nothing was stored"):
                rig.start("kp_completes")
            assert rig.redis.dbsize() <= keys
            rig.open("up")
            wait_for(lambda: "a report is kept until it can be stored" in worker.log, 20.0)
            wait_for(lambda: f"{REASON}: its sagas wait" in worker.log, 20.0, "the sweeper")
            assert rig.saga(held)["state"] == "running"
            told = cli("start", "kp_completes", url=rig.url)
            doctor = cli("doctor", "--json", url=rig.url)
            shown = cli("show", held, "--json", url=rig.url)
            wait_for(lambda: worker.log.count("a report is kept") > 3, 20.0, "a lease's time")
        for saga_id in (held, *waiting):
            end = "compensated" if saga_id == waiting[1] else "completed"
            assert rig.wait_settled(saga_id)["state"] == end
            assert second_starts(rig, saga_id) == []
            assert "step_lost" not in {event[0] for event in rig.events(saga_id)}
        assert worker.process.poll() is None
        assert "Traceback" not in worker.log.partition("kp_fail")[0]
    rig.close()
    assert (told.code, told.out) == (2, "")
    assert REASON in told.err
    assert (shown.code, shown.json["state"]) == (0, "running")
    memory = next(check for check in doctor.json["checks"] if check["name"] == "memory")
    assert (doctor.code, memory["status"]) == (1, "fail")
    assert "refuses writes (OOM)" in memory["message"]
    assert "maxmemory" in memory["fix"]


@pytest.mark.processes
def test_a_worker_starts_on_a_full_server_and_works_when_there_is_room(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """It neither ends nor loses what waits for it."""
    rig = Rig(server.url, 9, tmp_path)
    saga_id = rig.start("kp_completes")
    with full(rig.redis), rig.worker("-c", "1", "-P", "threads") as worker:
        wait_for(lambda: f"{REASON}: its sagas wait" in worker.log, 40.0, "the sweeper")
        wait_for(lambda: "Trying again in" in worker.log, 20.0, "Celery's own line")
        assert worker.process.poll() is None
        assert "Frequent restarts" not in worker.log
        rig.redis.config_set("maxmemory", "0")
        assert rig.wait_settled(saga_id)["state"] == "completed"
        assert second_starts(rig, saga_id) == []
    rig.close()


def test_asyncio_programs_are_told_that_the_server_is_full(redis_url: str) -> None:
    """The same error as from the sync face."""

    async def main() -> None:
        made = Orchestrator(registered()["kp_completes"], state_store=redis_url)
        async with made as orchestrator:
            await orchestrator.execute_workflow("kp_completes")
            with (
                redis.Redis.from_url(redis_url) as client,
                full(client),
                pytest.raises(NotWritable, match="it is full"),
            ):
                await orchestrator.execute_workflow("kp_completes")

    asyncio.run(main())


# ---- what explain says ----


def test_explain_says_that_nothing_moves_a_saga_on_a_full_server(redis_url: str) -> None:
    """It comes first, under a code of its own, with the advice; `explain` writes nothing."""
    with open_office(redis_url) as office, redis.Redis.from_url(redis_url) as client:
        saga_id = office.start(registered()["kp_flakes"])
        office.fail(office.claim(saga_id, "one"), retryable=True)
        before = cli("explain", saga_id, "--json", url=redis_url).json
        with full(client):
            keys = {key: client.dump(key) for key in client.keys("*")}
            told = cli("explain", saga_id, "--json", url=redis_url).json
            assert {key: client.dump(key) for key in client.keys("*")} == keys
        after = cli("explain", saga_id, "--json", url=redis_url).json
    first, *others = told["reasons"]
    assert (first["code"], first["refusal"], first["server"]) == ("no_writes", "OOM", redis_url)
    assert (
        f"Its server, {redis_url}, {REASON}. Until that is fixed, nothing moves it" in told["text"]
    )
    assert told["commands"][0] == "multiagents doctor"
    assert [(reason["code"], reason["at"]) for reason in others[:1]] == [("retrying", None)]
    for each in (before, after):
        assert [reason["code"] for reason in each["reasons"]] == ["retrying", "waiting"]
        assert each["reasons"][0]["at"]


def test_what_nobody_has_decided_over_waits_for_room(redis_url: str) -> None:
    """No sweep does it meanwhile, though a worker runs."""
    with open_office(redis_url) as office:
        saga = office.current(office.start(registered()["kp_flakes"]))
        now = Situation(*saga, UNDECIDED_MS, {}, pending=1)
    undecided = "1 event of it is recorded but not processed yet:"
    assert f"{undecided} a worker does so within seconds." in explanation(now, ())["text"]
    fresh = explanation(replace(now, pending_since_ms=1), ())
    assert [reason["code"] for reason in fresh["reasons"]].count("undecided") == 0
    text = explanation(replace(now, pending_since_ms=1, server=redis_url, refusal="OOM"), ())[
        "text"
    ]
    assert "a worker does so" not in text
    assert f"{undecided} that needs a write." in text


# ---- what doctor says ----


@pytest.mark.parametrize(
    ("policy", "evicted", "status"),
    [("noeviction", 0, "ok"), ("allkeys-lru", 0, "warn"), ("noeviction", 3, "fail")],
)
def test_evictions_are_found(policy: str, evicted: int, status: str) -> None:
    """A policy that may throw sagas away is a warning; one that has done so a failure."""
    info = {"maxmemory_policy": policy, "evicted_keys": str(evicted)}
    found = checks.eviction(ServerHealth(info))
    assert found.status == status
    assert bool(found.fix) is (status != "ok")


def test_a_saga_that_was_thrown_away_is_named(redis_url: str) -> None:
    """It is listed still, and its keys are gone."""
    bench = Bench(redis_url)
    bench.start(Step(name="x", worker="a"))
    bench.edge.client.delete(KEYS.saga)
    lost = next(
        c
        for c in cli("doctor", "--json", url=redis_url).json["checks"]
        if c["name"] == "lost sagas"
    )
    assert lost["status"] == "fail"
    assert SAGA in lost["message"]
    bench.edge.close()
