"""Can an asyncio program start, do, follow and steer sagas by itself?

Over a real server, with an embedded Celery worker; every wait is for a condition with a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from celery import current_app

import multiagents
from multiagents import (
    NonRetryableError,
    Orchestrator,
    UnknownSaga,
    UnknownWorker,
    UnknownWorkflow,
    WorkerExecutionError,
    WorkerManager,
    WorkflowBuilder,
    worker,
)
from multiagents.bootstrap import runtime_at
from multiagents.core.events import CommandEvent, ErrorEvent, ResultEvent
from multiagents.core.exceptions import InvalidInput, NoServer, NotAllowed
from multiagents.core.factory import create_simple_framework
from multiagents.core.settings import get_settings
from multiagents.event_bus.memory_bus import MemoryEventBus
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.monitoring import EventMonitor, WorkerMonitor
from multiagents.orchestrator.service import OPERATIONS
from multiagents.worker_sdk import registry

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

ENDED = {"completed", "failed", "compensated", "cancelled"}
LASTING = ("multiagents-loop", "multiagents-leases")
"""Threads that a process keeps, one each for a process and for a server."""


@worker("facade.double")
async def double(context):
    return {"doubled": 2 * context["number"]}


@worker("facade.describe", queue="facade-words")
def describe(context):
    return {"said": f"it is {context['doubled']}"}


@worker("facade.refuse")
def refuse(context):
    raise NonRetryableError("out of stock; password=hunter2")


@worker("facade.put_back")
def put_back(context):
    return {"put_back": context["number"]}


GATE = threading.Event()
"""Opened by a test, so that `wait_at_gate` returns."""


@worker("facade.wait_at_gate")
def wait_at_gate(context):
    GATE.wait(10)
    return {"passed": True}


CANCELLED = threading.Event()


@worker("facade.endless")
async def endless(context):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        CANCELLED.set()
        raise


NUMBERS = (
    WorkflowBuilder("facade-numbers")
    .add_step("double", "facade.double")
    .add_step("describe", "facade.describe")
    .build()
)
REFUSED = (
    WorkflowBuilder("facade-refused")
    .add_step("double", "facade.double", compensation="facade.put_back")
    .add_step("refuse", "facade.refuse")
    .build()
)


@pytest.fixture(autouse=True)
def short_polls(server):
    """A stopping worker waits for kombu to ask its queues once more: for 0.05 s, not for 1 s."""
    conf = runtime_at(server.url).app.conf
    options = dict(conf.broker_transport_options)
    conf.broker_transport_options = {**options, "polling_interval": 0.05}
    yield
    conf.broker_transport_options = options


def one_step(name: str, worker_name: str) -> Any:
    return WorkflowBuilder(name).add_step("only", worker_name).build()


async def until(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any], what: str, deadline_s: float = 15
) -> Any:
    """The first true answer of ``condition``, plain or async."""
    async with asyncio.timeout(deadline_s):
        while True:
            answer = condition()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return answer
            await asyncio.sleep(0.02)
    raise AssertionError(what)


async def ended(orchestrator: Orchestrator, saga_id: str) -> dict[str, Any]:
    async def status() -> dict[str, Any] | None:
        found = await orchestrator.get_status(saga_id)
        return found if found["state"] in ENDED else None

    found: dict[str, Any] = await until(status, f"end of {saga_id}")
    return found


@asynccontextmanager
async def framework(
    redis_url: str, workflow: Any, *functions: Any, monitor: Any = None, **manager: Any
) -> AsyncIterator[tuple[RedisEventBus, WorkerManager, Orchestrator]]:
    """Everything started, and stopped in the order in which programs do it."""
    bus = RedisEventBus(redis_url, event_monitor=monitor)
    workers = WorkerManager(bus, **manager)
    for function in functions:
        workers.register(function)
    orchestrator = Orchestrator(workflow, bus)
    async with bus, orchestrator, workers:
        yield bus, workers, orchestrator


# ---- sagas ----


def test_a_saga_runs_to_its_end_in_one_process(redis_url):
    """Bus, workers and orchestrator together do all the steps, on every queue they need."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, _, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 21})
            return await ended(orchestrator, saga_id)

    status = asyncio.run(main())
    assert status["state"] == "completed"
    assert status["result"] == {"said": "it is 42"}
    assert status["step_results"]["double"] == {"doubled": 42}


def test_a_failed_saga_is_compensated(redis_url):
    """A step that fails for good has the steps before it undone."""

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
    """`get_status` and `SagaService.get` give one and the same description."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, _, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 1})
            return await ended(orchestrator, saga_id), saga_id

    status, saga_id = asyncio.run(main())
    assert status == runtime_at(redis_url).call("get", saga_id)


def test_an_idempotency_key_starts_one_saga(redis_url):
    """The second start under a key returns the first saga's id."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, _, orchestrator):
            start = orchestrator.execute_workflow
            ids = {
                await start("facade-numbers", {"number": n}, idempotency_key="k") for n in (1, 2)
            }
            return ids, await orchestrator.list(workflow="facade-numbers")

    ids, rows = asyncio.run(main())
    assert len(ids) == len(rows) == 1


def test_what_cannot_run_is_refused_before_anything_is_stored(redis_url):
    """Unknown workflow, worker and saga each have their error; nothing is left behind."""

    async def main():
        nobody = one_step("facade-nobody", "facade.nobody")
        async with RedisEventBus(redis_url) as bus, Orchestrator(nobody, bus) as orchestrator:
            with pytest.raises(UnknownWorkflow, match="facade-nowhere"):
                await orchestrator.execute_workflow("facade-nowhere", {})
            with pytest.raises(UnknownWorker, match=r"facade\.nobody"):
                await orchestrator.execute_workflow("facade-nobody", {})
            with pytest.raises(UnknownSaga):
                await orchestrator.get_status("no-such-saga")
            return await orchestrator.list()

    assert asyncio.run(main()) == []


def test_an_orchestrator_starts_its_own_definition_by_name(redis_url):
    """Another orchestrator with the same name and a newer definition does not change the first."""

    async def main():
        first = one_step("facade-twice", "facade.double")
        async with framework(redis_url, first, double, describe) as (bus, _, orchestrator):
            Orchestrator(NUMBERS.model_copy(update={"name": "facade-twice"}), bus)
            saga_id = await orchestrator.execute_workflow("facade-twice", {"number": 1})
            return await ended(orchestrator, saga_id)

    assert asyncio.run(main())["version"] == one_step("facade-twice", "facade.double").version


def test_a_running_saga_is_paused_resumed_cancelled_and_told(redis_url):
    """The operations of the service are coroutine methods, by the same names."""

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
    """Whatever the table offers is there, documented; anything else is an AttributeError."""
    orchestrator = Orchestrator(NUMBERS, MemoryEventBus())
    assert set(OPERATIONS) <= set(dir(orchestrator))
    for name in set(OPERATIONS) - {"start"}:
        assert getattr(orchestrator, name).__doc__
    with pytest.raises(AttributeError, match="no 'launch'"):
        _ = orchestrator.launch


def test_plain_delay_works_beside_a_running_manager(redis_url):
    """`AsyncResult.get` is not forbidden in a process that runs a WorkerManager."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe):
            start = runtime_at(redis_url).start_saga
            result = await asyncio.to_thread(start.delay, "facade-numbers", {"number": 4})
            return await asyncio.to_thread(result.get, timeout=15)

    assert asyncio.run(main()) == {"said": "it is 8"}


# ---- what is told ----


def test_monitors_count_what_really_happened(redis_url):
    """One start and one end for each attempt, by worker, with true durations."""
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
    """Commands, results, errors, compensations and states arrive in the order they happened."""
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
    """Each attempt's command passes all the stages; a failed one ends as failed."""
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
    """The streams keep many events: what is above the limit is left out, and the saga runs."""
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
    """The hot path is wrapped only while somebody listens."""
    engine = runtime_at(redis_url)

    async def main():
        plain = engine.process().perform
        async with RedisEventBus(redis_url) as bus:
            async with WorkerManager(bus):
                assert engine.process().perform is not plain
            assert engine.process().perform is plain
            assert engine.host.coordinator.observers == []

    asyncio.run(main())


# ---- workers by hand ----


def test_a_registered_worker_can_be_run_by_hand(redis_url):
    """`get_worker(name).execute(context)` runs it once, and a command event does the same."""
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
    """No saga is there to take it."""
    manager = WorkerManager()
    manager.register(refuse)
    with pytest.raises(NonRetryableError, match="out of stock"):
        asyncio.run(manager.get_worker("facade.refuse").execute({}))


def test_only_workers_can_be_registered():
    """A plain function has no name: the error says what to do."""
    with pytest.raises(InvalidInput, match="@worker"):
        WorkerManager().register(lambda context: {})


def test_a_worker_registered_while_the_manager_runs_gets_its_steps(redis_url):
    """Its queue is consumed from then on, and its task is known."""

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
    """A reload is no second task of that name: Celery has nothing to warn of."""
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
    """Each start serves, each idle stop takes less than 2 s, and no thread is left."""
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
    """Stop and start, in either order and as often as one likes."""

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
    """Celery has state for one worker in a process; the first one is not disturbed."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (bus, workers, _):
            with pytest.raises(NotAllowed, match="runs in this process already"):
                await WorkerManager(bus).start()
            return workers.is_running

    assert asyncio.run(main())


def test_the_program_keeps_its_signals_logging_and_celery_app(redis_url):
    """An embedded worker does not own the process."""
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
    """What runs is finished and reported before `stop` returns."""

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
    """The coroutine is cancelled; its step stays claimed, for whoever comes after its lease."""

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
    """An orchestrator that is not started refuses, as the bus does."""
    orchestrator = Orchestrator(NUMBERS, MemoryEventBus())
    with pytest.raises(InvalidInput, match=r"await orchestrator\.start\(\)"):
        asyncio.run(orchestrator.execute_workflow("facade-numbers", {}))


@pytest.mark.parametrize("make", [WorkerManager, lambda bus: Orchestrator(NUMBERS, bus)])
def test_without_a_server_start_fails_soon_and_says_what_to_do(make):
    """One NoServer without the password of the URL; and nothing keeps running."""
    bus = RedisEventBus("redis://:secret@127.0.0.1:1/0")

    async def main():
        component = make(bus)
        with pytest.raises(NoServer, match="MULTIAGENTS_REDIS_URL") as caught:
            await component.start()
        await component.stop()
        return str(caught.value)

    before = threads()
    assert "secret" not in asyncio.run(main())
    assert threads() <= before


def test_a_state_store_is_a_url():
    """Sagas live in Redis; an object of one's own is refused instead of being ignored."""
    with pytest.raises(InvalidInput, match="URL of a Redis"):
        Orchestrator(NUMBERS, MemoryEventBus(), state_store=object())  # type: ignore[arg-type]


def test_no_concurrency_is_refused():
    """A manager that could do nothing is a mistake."""
    with pytest.raises(InvalidInput, match="at least 1"):
        WorkerManager(concurrency=0)


def test_in_eager_mode_the_facade_needs_no_server(saga_lab):
    """`execute_workflow` returns at the saga's end; nothing is started."""

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
    """The current folder is empty, and the settings name the test's server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULTIAGENTS_REDIS_URL", redis_url)
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def test_the_factory_gives_three_things_awaited_or_not(own_folder):
    """Both spellings unpack into a bus, a manager and an orchestrator that know each other."""

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
    """The names of the first documents are importable where those say."""
    assert multiagents.Orchestrator is Orchestrator
    assert {"Orchestrator", "WorkerManager", "RedisEventBus"} <= set(multiagents.__all__)
    assert registry.find("facade.double") is double
    assert issubclass(WorkerExecutionError, Exception)
    assert ErrorEvent(transaction_id="t", worker_name="w", error="e").event_type == "error"
