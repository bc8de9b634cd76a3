"""Can an asyncio program alone start, run, follow and steer sagas?

The server is real and the Celery worker embedded; every wait is for a condition with a deadline.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from multiagents import (
    IdempotencyConflict,
    Orchestrator,
    UnknownSaga,
    UnknownWorker,
    UnknownWorkflow,
    WorkerManager,
    WorkflowBuilder,
    worker,
)
from multiagents.core.events import CommandEvent, ResultEvent
from multiagents.event_bus.memory_bus import MemoryEventBus
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.hosting.runtime import runtime_at
from multiagents.monitoring import EventMonitor, WorkerMonitor
from multiagents.operations.operation import OPERATIONS
from tests.support.facade import (
    GATE,
    NUMBERS,
    REFUSED,
    describe,
    double,
    ended,
    framework,
    one_step,
    put_back,
    quick_stops,
    refuse,
    until,
    wait_at_gate,
)
from tests.support.values import GIVEN, STORED

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture(autouse=True)
def short_polls(server):
    with quick_stops(server.url):
        yield


# ---- sagas ----


def test_a_saga_runs_to_its_end_in_one_process(redis_url):
    """Bus, workers and orchestrator run all steps on every queue they need."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, _, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 21})
            return await ended(orchestrator, saga_id)

    status = asyncio.run(main())
    assert status["state"] == "completed"
    assert status["result"] == {"said": "it is 42"}
    assert status["step_results"]["double"] == {"doubled": 42}


def test_an_input_has_the_form_it_has_everywhere(redis_url):
    """An asyncio program's UUID or Decimal is stored like any other program's."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, _, orchestrator):
            given = {"number": 2**70, **GIVEN}
            saga_id = await orchestrator.execute_workflow("facade-numbers", given)
            return await ended(orchestrator, saga_id)

    status = asyncio.run(main())
    assert status["input"] == {"number": 2**70, **STORED}
    assert status["step_results"]["double"] == {"doubled": 2**71}


def test_a_failed_saga_is_compensated(redis_url):
    """A final failure undoes the steps before it."""

    async def main():
        functions = (double, refuse, put_back)
        async with framework(redis_url, REFUSED, *functions) as (_, _, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-refused", {"number": 1})
            return await ended(orchestrator, saga_id)

    status = asyncio.run(main())
    assert status["state"] == "compensated"
    assert status["steps"]["double"]["compensation"]["state"] == "succeeded"
    assert status["error"]["step"] == "refuse"


def test_the_status_is_the_dict_of_the_sync_face(redis_url):
    """`get_status` and `SagaService.get` return the same dict."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, _, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 1})
            return await ended(orchestrator, saga_id), saga_id

    status, saga_id = asyncio.run(main())
    assert status == runtime_at(redis_url).call("get", saga_id)


def test_an_idempotency_key_starts_one_saga(redis_url):
    """A later start returns the first saga's id, with another input only on request."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, _, orchestrator):
            start = orchestrator.execute_workflow
            ids = {
                await start(
                    "facade-numbers", {"number": n}, idempotency_key="k", on_conflict="first"
                )
                for n in (1, 2)
            }
            [saga_id] = ids
            step = next(iter((await orchestrator.get_status(saga_id))["steps"]))
            status = await orchestrator.get_status(f"{saga_id}:{step}:1")
            assert status["transaction_id"] == saga_id
            with pytest.raises(IdempotencyConflict, match="other: 'number'"):
                await start("facade-numbers", {"number": 3}, idempotency_key="k")
            assert await orchestrator.list(input={"number": 2}) == []
            found = await orchestrator.list(idempotency_key="k", since="1h", input={"number": 1})
            assert [row["transaction_id"] for row in found] == [saga_id]
            return ids, await orchestrator.list(workflow="facade-numbers")

    ids, rows = asyncio.run(main())
    assert len(ids) == len(rows) == 1


def test_what_cannot_run_is_refused_before_anything_is_stored(redis_url):
    """Unknown workflow, worker and saga each have their own error."""

    async def main():
        nobody = one_step("facade-nobody", "facade.nobody")
        async with RedisEventBus(redis_url) as bus, Orchestrator(nobody, bus) as orchestrator:
            with pytest.raises(UnknownWorkflow, match="facade-nowhere"):
                await orchestrator.execute_workflow("facade-nowhere", {})
            with pytest.raises(UnknownWorker, match="facade-nobody"):
                await orchestrator.execute_workflow("facade-nobody", {})
            with pytest.raises(UnknownSaga):
                await orchestrator.get_status("no-such-saga")
            return await orchestrator.list()

    assert asyncio.run(main()) == []


def test_an_orchestrator_starts_its_own_definition_by_name(redis_url):
    """Another orchestrator's newer definition of that name does not affect it."""

    async def main():
        first = one_step("facade-twice", "facade.double")
        async with framework(redis_url, first, double, describe) as (bus, _, orchestrator):
            Orchestrator(NUMBERS.model_copy(update={"name": "facade-twice"}), bus)
            saga_id = await orchestrator.execute_workflow("facade-twice", {"number": 1})
            return await ended(orchestrator, saga_id)

    assert asyncio.run(main())["version"] == one_step("facade-twice", "facade.double").version


def test_a_running_saga_is_paused_resumed_cancelled_and_told(redis_url):
    """The service's operations are coroutine methods of the same names."""

    async def main():
        pausing = (
            WorkflowBuilder("facade-pausing")
            .add_step("gate", "facade.wait_at_gate")
            .add_step("double", "facade.double")
            .build()
        )
        GATE.clear()
        async with framework(redis_url, pausing, wait_at_gate, double) as (_, _, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-pausing", {"number": 1})
            states = [(await orchestrator.pause(saga_id, by="me", reason="look"))["state"]]
            states.append((await orchestrator.resume(saga_id))["state"])
            await orchestrator.cancel(saga_id)
            GATE.set()
            states.append((await ended(orchestrator, saga_id))["state"])
            return states, await orchestrator.history(saga_id)

    states, history = asyncio.run(main())
    assert states == ["paused", "running", "cancelled"]
    assert {"saga_paused", "saga_cancelled"} <= {event["type"] for event in history}


def test_the_async_face_is_made_from_the_table_of_operations():
    """Every operation exists with its docstring; other names raise AttributeError."""
    orchestrator = Orchestrator(NUMBERS, MemoryEventBus())
    assert set(OPERATIONS) <= set(dir(orchestrator))
    for name in set(OPERATIONS) - {"start"}:
        assert getattr(orchestrator, name).__doc__
    with pytest.raises(AttributeError, match="no 'launch'"):
        _ = orchestrator.launch


def test_plain_delay_works_beside_a_running_manager(redis_url):
    """`AsyncResult.get` is allowed in a process with a running WorkerManager."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe):
            start = runtime_at(redis_url).start_saga
            result = await asyncio.to_thread(start.delay, "facade-numbers", {"number": 4})
            return await asyncio.to_thread(result.get, timeout=15)

    assert asyncio.run(main()) == {"said": "it is 8"}


# ---- what is told ----


def test_monitors_count_what_really_happened(redis_url):
    """Each attempt gives one start and one end, by worker, with its duration."""
    monitor = WorkerMonitor()

    async def main():
        functions = (double, refuse, put_back)
        async with framework(redis_url, REFUSED, *functions, worker_monitor=monitor) as (
            _,
            _,
            orchestrator,
        ):
            for number in range(3):
                start = orchestrator.execute_workflow
                await ended(orchestrator, await start("facade-refused", {"number": number}))

    asyncio.run(main())
    stats = monitor.get_all_stats()
    counts = {n: (s["started"], s["succeeded"], s["failed"]) for n, s in stats.items()}
    assert counts == {
        "facade.double": (3, 3, 0),
        "facade.refuse": (3, 0, 3),
        "facade.put_back": (3, 3, 0),
    }
    assert stats["facade.refuse"]["errors"] == {"NonRetryableError": 3}
    assert all(s["duration_s"]["samples"] == 3 and not s["in_progress"] for s in stats.values())


def test_the_bus_tells_a_saga_from_start_to_end(redis_url):
    """Commands, results, errors, compensations and states arrive in order."""
    told: list[Any] = []

    async def main():
        functions = (double, refuse, put_back)
        async with framework(redis_url, REFUSED, *functions) as (bus, _, orchestrator):
            await bus.subscribe("*", told.append, group="audit")
            saga_id = await orchestrator.execute_workflow(
                "facade-refused", {"number": 1}, correlation_id="trace-7"
            )
            await until(lambda: any(_is_status(e, "compensated") for e in told), "the end")
            await until(lambda: len(told) >= 9, "all events")
            return saga_id

    saga_id = asyncio.run(main())
    assert {e.transaction_id for e in told} == {saga_id}
    assert {e.correlation_id for e in told} == {"trace-7"}
    assert len({e.event_id for e in told}) == len(told)
    by_type: dict[str, list[Any]] = {}
    for event in told:
        by_type.setdefault(event.event_type, []).append(event)
    names = {kind: [e.worker_name for e in by_type[kind]] for kind in ("command", "compensation")}
    assert names == {
        "command": ["facade.double", "facade.refuse"],
        "compensation": ["facade.put_back"],
    }
    assert [e.state for e in by_type["status"]] == ["running", "compensating", "compensated"]
    assert [e.result for e in by_type["result"]] == [{"doubled": 2}, {"put_back": 1}]
    (error,) = by_type["error"]
    assert error.error.startswith("NonRetryableError: out of stock")
    assert "hunter2" not in error.error


def _is_status(event: Any, state: str) -> bool:
    return event.event_type == "status" and event.state == state


def test_an_event_monitor_sees_commands_from_dispatch_to_completion(redis_url):
    """Each attempt's command passes all stages; a failed attempt ends as failed."""
    monitor = EventMonitor()

    async def main():
        functions = (double, refuse, put_back)
        async with framework(redis_url, REFUSED, *functions, monitor=monitor) as (_, _, it):
            saga_id = await it.execute_workflow("facade-refused", {"number": 1})
            await ended(it, saga_id)
            return saga_id

    trace = monitor.get_trace(asyncio.run(main()))
    first = next(e["event_id"] for e in trace if e["event_type"] == "command")
    stages = [e["stage"] for e in trace if e["event_id"] == first]
    assert stages == ["dispatched", "published", "picked_up", "processing", "completed"]
    assert monitor.get_metrics()["by_type"]["command"]["stages"]["failed"] == 1


def test_a_large_context_or_result_does_not_travel_on_the_bus(redis_url):
    """Events omit values above the limit, because streams keep many events."""
    told: list[Any] = []
    large = "x" * 40_000

    async def main():
        echo = one_step("facade-large", "facade.large")
        async with framework(redis_url, echo, big) as (bus, _, orchestrator):
            await bus.subscribe("*", told.append)
            saga_id = await orchestrator.execute_workflow("facade-large", {"text": large})
            status = await ended(orchestrator, saga_id)
            await until(lambda: any(_is_status(e, "completed") for e in told), "the end")
            return status

    @worker("facade.large")
    def big(context):
        return {"text": context["text"]}

    assert asyncio.run(main())["result"] == {"text": large}
    assert [e.context for e in told if isinstance(e, CommandEvent)] == [{}]
    assert [e.result for e in told if isinstance(e, ResultEvent)] == [{}]


def test_nothing_is_watched_once_a_manager_has_stopped(redis_url):
    """The hot path is wrapped only while a monitor or bus listens."""
    engine = runtime_at(redis_url)

    async def main():
        plain = engine.process().perform
        async with RedisEventBus(redis_url) as bus:
            async with WorkerManager(bus):
                assert engine.process().perform is not plain
            assert engine.process().perform is plain
            assert engine.host.coordinator.observers == []

    asyncio.run(main())
