"""Do an asyncio program's manager, workers and factory start and stop on request?

The server is real and the Celery worker embedded; every wait is for a condition with a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from typing import Any

import pytest
from celery import current_app

import multiagents
from multiagents import (
    NonRetryableError,
    Orchestrator,
    UnknownWorker,
    WorkerExecutionError,
    WorkerManager,
    worker,
)
from multiagents.core.events import CommandEvent, ErrorEvent
from multiagents.core.exceptions import InvalidInput, NoServer, NotAllowed
from multiagents.core.factory import create_simple_framework
from multiagents.core.settings import get_settings
from multiagents.event_bus.memory_bus import MemoryEventBus
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.hosting.runtime import runtime_at
from multiagents.monitoring import WorkerMonitor
from multiagents.worker_sdk import registry
from tests.support.facade import (
    CANCELLED,
    GATE,
    NUMBERS,
    describe,
    double,
    ended,
    endless,
    framework,
    one_step,
    quick_stops,
    refuse,
    until,
    wait_at_gate,
)

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

LASTING = ("multiagents-loop", "multiagents-leases")
"""Threads that a process keeps: one per process and one per server."""


@pytest.fixture(autouse=True)
def short_polls(server):
    with quick_stops(server.url):
        yield


# ---- workers by hand ----


def test_a_registered_worker_can_be_run_by_hand(redis_url):
    """`get_worker(name).execute(context)` runs it once, and so does a command event."""
    monitor = WorkerMonitor()
    manager = WorkerManager(MemoryEventBus(), worker_monitor=monitor)
    manager.register(double)
    manager.register(describe)

    async def main():
        command = CommandEvent(
            transaction_id="t", worker_name="facade.describe", context={"doubled": 3}
        )
        return (
            await manager.get_worker("facade.double").execute({"number": 2}),
            await command.execute_via(manager),
        )

    assert asyncio.run(main()) == ({"doubled": 4}, {"said": "it is 3"})
    assert monitor.get_worker_stats("facade.double")["succeeded"] == 1
    with pytest.raises(UnknownWorker, match=r"facade\.double, facade\.describe"):
        manager.get_worker("facade.refuse")


def test_a_worker_run_by_hand_raises_its_own_error():
    """There is no saga to record the error."""
    manager = WorkerManager()
    manager.register(refuse)
    with pytest.raises(NonRetryableError, match="out of stock"):
        asyncio.run(manager.get_worker("facade.refuse").execute({}))


def test_only_workers_can_be_registered():
    """The error for a plain function says what to do."""
    with pytest.raises(InvalidInput, match="@worker"):
        WorkerManager().register(lambda context: {})


def test_a_worker_registered_while_the_manager_runs_gets_its_steps(redis_url):
    """The manager consumes its queue and knows its task from then on."""

    async def main():
        late_workflow = one_step("facade-late", "facade.late")
        async with framework(redis_url, late_workflow) as (_, workers, orchestrator):
            name = "facade.late"

            @worker(name, queue="facade-late-queue")
            def late(context):
                return {"late": True}

            workers.register(late)
            saga_id = await orchestrator.execute_workflow("facade-late", {})
            return await ended(orchestrator, saga_id)

    assert asyncio.run(main())["result"] == {"late": True}


def test_a_worker_defined_again_replaces_its_task(redis_url):
    """A reload makes no second task of that name, and Celery no warning."""
    engine = runtime_at(redis_url)

    def define(answer: int) -> Any:
        @worker("facade.again")
        def again(context):
            return {"answer": answer}

        return again

    define(1)
    second = define(2)
    assert engine.app.tasks["facade.again"].worker is second


# ---- life ----


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if not t.name.startswith(LASTING)}


def test_managers_start_and_stop_one_after_the_other(redis_url):
    """Each start serves, each idle stop takes under 2 s, and no thread stays."""
    runtime_at(redis_url).app.conf.broker_transport_options.pop("polling_interval")

    async def once() -> float:
        async with framework(redis_url, NUMBERS, double, describe) as (_, workers, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 1})
            assert (await ended(orchestrator, saga_id))["state"] == "completed"
            begun_s = time.monotonic()
            await workers.stop()
            return time.monotonic() - begun_s

    before = threads()
    took_s = [asyncio.run(once()) for _ in range(3)]
    assert max(took_s) < 2
    assert threads() <= before


def test_one_manager_can_be_started_again(redis_url):
    """Stop and start work in any order and number."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, workers, orchestrator):
            await workers.start()
            await workers.stop()
            await workers.stop()
            assert not workers.is_running
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 1})
            await workers.start()
            assert workers.is_running
            return await ended(orchestrator, saga_id)

    assert asyncio.run(main())["state"] == "completed"


def test_a_second_manager_at_the_same_time_is_refused(redis_url):
    """Celery's state serves one worker per process; the first manager runs on."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (bus, workers, _):
            with pytest.raises(NotAllowed, match="already runs in this process"):
                await WorkerManager(bus).start()
            return workers.is_running

    assert asyncio.run(main())


def test_the_program_keeps_its_signals_logging_and_celery_app(redis_url):
    """An embedded worker changes none of the process's own settings."""
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)

    def state() -> Any:
        root = logging.getLogger()
        return (
            [signal.getsignal(number) for number in taken],
            list(root.handlers),
            root.level,
            current_app._get_current_object(),
            sys.stdout,
            sys.stderr,
        )

    async def main():
        before = state()
        async with framework(redis_url, NUMBERS, double, describe):
            during = state()
        return before, during, state()

    before, during, after = asyncio.run(main())
    assert before == during == after


def test_stopping_lets_a_running_step_end(redis_url):
    """The running step ends and is reported before `stop` returns."""

    async def main():
        GATE.clear()
        waiting = one_step("facade-waiting", "facade.wait_at_gate")
        async with framework(redis_url, waiting, wait_at_gate) as (_, workers, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-waiting", {})
            await _is_running(orchestrator, saga_id)
            stopping = asyncio.create_task(workers.stop())
            await asyncio.sleep(0)
            GATE.set()
            await stopping
            return await orchestrator.get_status(saga_id)

    assert asyncio.run(main())["state"] == "completed"


def test_stopping_cancels_an_async_step_that_does_not_end(redis_url):
    """The cancelled step stays claimed until its lease expires."""

    async def main():
        CANCELLED.clear()
        workflow = one_step("facade-endless", "facade.endless")
        async with framework(redis_url, workflow, endless) as (_, workers, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-endless", {})
            await _is_running(orchestrator, saga_id)
            await workers.stop(timeout_s=0.1)
            assert not workers.is_running
            return await orchestrator.get_status(saga_id)

    status = asyncio.run(main())
    assert CANCELLED.wait(5)
    assert status["state"] == "running"


async def _is_running(orchestrator: Orchestrator, saga_id: str) -> None:
    async def look() -> bool:
        status = await orchestrator.get_status(saga_id)
        return bool(status["steps"]["only"]["state"] == "running")

    await until(look, "the step to run")


def test_nothing_works_before_start_and_the_error_says_so():
    """An orchestrator that is not started raises, as the bus does."""
    orchestrator = Orchestrator(NUMBERS, MemoryEventBus())
    with pytest.raises(InvalidInput, match=r"await orchestrator\.start\(\)"):
        asyncio.run(orchestrator.execute_workflow("facade-numbers", {}))


@pytest.mark.parametrize("make", [WorkerManager, lambda bus: Orchestrator(NUMBERS, bus)])
def test_without_a_server_start_fails_soon_and_says_what_to_do(make):
    """One NoServer without the URL's password; nothing keeps running."""
    bus = RedisEventBus("redis://:secret@127.0.0.1:1/0")

    async def main():
        component = make(bus)
        with pytest.raises(NoServer, match="start one, or correct the server's URL") as caught:
            await component.start()
        await component.stop()
        return str(caught.value)

    before = threads()
    assert "secret" not in asyncio.run(main())
    assert threads() <= before


def test_a_state_store_is_a_url():
    """Sagas are in Redis; any other object is refused instead of ignored."""
    with pytest.raises(
        InvalidInput, match=r"object of builtins\.object: expected the URL of the Redis"
    ):
        Orchestrator(NUMBERS, MemoryEventBus(), state_store=object())  # type: ignore[arg-type]


def test_no_concurrency_is_refused():
    """A manager without slots could run nothing."""
    with pytest.raises(InvalidInput, match="at least 1"):
        WorkerManager(concurrency=0)


def test_in_eager_mode_the_facade_needs_no_server(saga_lab):
    """`execute_workflow` returns at the saga's end, and nothing is started."""

    async def main():
        async with (
            WorkerManager(MemoryEventBus()) as workers,
            Orchestrator(NUMBERS, MemoryEventBus()) as orchestrator,
        ):
            workers.register(double)
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 5})
            return await orchestrator.get_status(saga_id)

    assert asyncio.run(main())["result"] == {"said": "it is 10"}


# ---- the factory ----


@pytest.fixture
def own_folder(redis_url, monkeypatch, tmp_path):
    """Run in an empty folder, with settings that name the test's server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULTIAGENTS_REDIS_URL", redis_url)
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def test_the_factory_gives_three_things_awaited_or_not(own_folder):
    """Both spellings give a connected bus, manager and orchestrator."""

    async def main():
        return await create_simple_framework(NUMBERS)

    for event_bus, worker_manager, orchestrator in (
        create_simple_framework(NUMBERS),
        asyncio.run(main()),
    ):
        assert isinstance(event_bus, RedisEventBus)
        assert worker_manager.event_bus is event_bus is orchestrator.event_bus
        assert orchestrator.workflow == NUMBERS


def test_the_factory_heeds_the_folders_monitoring_file(own_folder):
    """``monitoring.yaml`` decides where log lines go."""
    (own_folder / "monitoring.yaml").write_text("logging: {file_path: ./here/saga.log}\n")

    async def main():
        event_bus, workers, orchestrator = create_simple_framework(NUMBERS)
        workers.register(double)
        workers.register(describe)
        async with event_bus, workers, orchestrator:
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 1})
            return await ended(orchestrator, saga_id)

    assert asyncio.run(main())["state"] == "completed"
    assert "workers started" in (own_folder / "here" / "saga.log").read_text()


def test_the_package_offers_the_facade_by_name():
    """The seed documents' import paths work."""
    assert multiagents.Orchestrator is Orchestrator
    assert {"Orchestrator", "WorkerManager", "RedisEventBus"} <= set(multiagents.__all__)
    assert registry.find("facade.double") is double
    assert issubclass(WorkerExecutionError, Exception)
    assert ErrorEvent(transaction_id="t", worker_name="w", error="e").event_type == "error"
