"""Are leases long enough, and are late renewals noticed?"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, current_thread
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from structlog.testing import capture_logs

from multiagents import WorkflowBuilder, worker
from multiagents.cli.doctor import checks
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import FakeClock
from multiagents.core.ports import Assignment
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.engine.catalog import Catalog
from multiagents.hosting.assembly import Host
from multiagents.hosting.runtime import runtime_at
from multiagents.storage.client import UNREACHABLE, Edge
from multiagents.storage.keys import Shard
from multiagents.worker_sdk.leases import LeaseKeeper
from multiagents.worker_sdk.validation import check_input


@worker("lease_crunch", kind="cpu")
def crunch(context: dict[str, Any]) -> dict[str, Any]:
    return {}


@worker("lease_fetch")
def fetch(context: dict[str, Any]) -> dict[str, Any]:
    return {}


def host(redis_url: str) -> Host:
    clock = FakeClock()
    catalog = Catalog(clock)
    catalog.add_local(crunch.info)
    catalog.add_local(fetch.info)
    edge = Edge(redis_url, perform=lambda effect: True)
    settings = Settings(redis_url=redis_url, lease_s=2)
    return Host(edge, settings=settings, clock=clock, catalog=catalog, check_input=check_input)


def lease_s(made: Host, name: str) -> float:
    """The lease of this worker's claim, before and after its renewal."""
    saga_id = made.call("start", WorkflowBuilder(name).add_step("only", name).build())
    held = made.engine.claim(saga_id, AttemptRef(Kind.RUN, "only", 1), delivery="d", queue="io")
    assert held is not None
    assert made.engine.renew([held], {}) == []
    ends = [
        score
        for member, score in made.edge.client.zrange(Shard().due, 0, -1, withscores=True)
        if member.startswith(f"l|{saga_id}".encode())
    ]
    made.edge.close()
    return (ends[0] - made.clock.now_ms()) / 1000


def test_a_cpu_step_has_a_lease_of_fifteen_seconds_at_least(redis_url):
    """E9: MULTIAGENTS_LEASE_S does not shorten it."""
    assert lease_s(host(redis_url), "lease_crunch") == 15
    assert lease_s(host(redis_url), "lease_fetch") == 2


class Watched:
    """An engine that only counts."""

    def __init__(self) -> None:
        self.late = 0

    def renew(self, held: list[Assignment], notes: Any) -> list[Assignment]:
        return []

    def count_late(self) -> None:
        self.late += 1


def test_a_late_renewal_is_counted(redis_url):
    """E9: a renewal is late only if a lease was held all the time."""
    clock, engine = FakeClock(), Watched()
    keeper = LeaseKeeper(
        engine,
        clock=clock,
        lease_ms=3_000_000,
        cancel=lambda token: False,
        on_timeout=lambda held, place: None,
        can_kill=False,
    )
    held = Assignment("s", "w", "v", Kind.RUN, "a", 1, "n1", "w", "io", "d")
    keeper.hold(held)
    for seconds in (1000, 1000, 2500):
        clock.advance(seconds)
        keeper._tick()
    assert engine.late == 1
    keeper.release(held)
    clock.advance(9000)
    keeper.hold(Assignment("s", "w", "v", Kind.RUN, "b", 1, "n2", "w", "io", "d"))
    keeper._tick()
    assert engine.late == 1


class Holding:
    """A thread that can be declared gone."""

    is_gone = False

    def is_alive(self) -> bool:
        return not self.is_gone


class Limited:
    """A keeper of attempts, some with a timeout of 100 s, on a clock to advance."""

    def __init__(self, *names: str) -> None:
        self.clock = FakeClock()
        self.renewed: list[list[str]] = []
        self.told: list[str] = []
        self.refusing: set[str] = set()
        self.lost: set[str] = set()
        self.cancelled: list[str] = []
        self.threads: dict[str, Holding] = {}
        self.keeper = LeaseKeeper(
            self,  # type: ignore[arg-type]  # all that is asked of an engine here
            clock=self.clock,
            lease_ms=30_000,
            cancel=self._cancel,
            on_timeout=self._tell,
            can_kill=False,
        )
        self.keeper._thread = current_thread()  # no thread: it looks when called
        self.held = {name: self._hold(name) for name in names}

    def _hold(self, name: str) -> Assignment:
        deadline_ms = 0 if name == "free" else self.clock.now_ms() + 100_000
        where = ("s", "w", "v", Kind.RUN, name, 1, name, "w", "io", "d")
        held = Assignment(*where, deadline_ms=deadline_ms)
        self.keeper.hold(held, by=self.threads.setdefault(name, Holding()))
        return held

    def renew(self, held: list[Assignment], notes: Any) -> list[Assignment]:
        self.renewed.append([each.step for each in held])
        return [each for each in held if each.step in self.lost]

    def _cancel(self, nonce: str) -> bool:
        self.cancelled.append(nonce)
        return False

    def count_late(self) -> None:
        """Does nothing, because these tests do not use the count."""

    def _tell(self, held: Assignment, place: str) -> None:
        self.told.append(held.step)
        if held.step in self.refusing:
            raise UNREACHABLE[0]("the server of this one is away")

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.keeper._tick()


def test_a_time_out_that_cannot_be_reported_keeps_no_lease_from_being_renewed() -> None:
    """Other timeouts go on, too; the report is retried and logged once."""
    limited = Limited("away", "near", "free")
    limited.refusing = {"away"}
    with capture_logs() as logs:
        for _ in range(3):
            limited.pass_time(101)
    assert limited.renewed == 3 * [["away", "near", "free"]]
    assert limited.told.count("near") == 1
    assert limited.told.count("away") >= 2
    said = [line for line in logs if line["event"].startswith("a timeout is not reported")]
    assert [line["step"] for line in said] == ["away"]
    limited.refusing.clear()
    limited.pass_time(1)
    again = limited.told.count("away")
    limited.pass_time(1)
    assert limited.told.count("away") == again


def test_what_has_ended_in_time_is_renewed_and_not_timed_out() -> None:
    """A slow report keeps its lease, which ends once the report is stored."""
    limited = Limited("one")
    keeper, held = limited.keeper, limited.held["one"]
    keeper.ended(held)
    limited.pass_time(101)
    assert (limited.told, limited.renewed) == ([], [["one"]])
    keeper.release(held)
    limited.pass_time(101)
    assert (limited.renewed, keeper._leases) == ([["one"]], {})


def test_a_lease_that_its_own_report_has_ended_is_not_called_lost() -> None:
    """A renewal may come between report and reply; a running function's lease is lost."""
    limited = Limited("ended", "overdue", "taken")
    limited.keeper.ended(limited.held["ended"])
    limited.keeper._leases["overdue"].is_overdue = True
    limited.lost = {"ended", "overdue", "taken"}
    with capture_logs() as logs:
        limited.pass_time(20)
        limited.pass_time(20)
    told = [line["step"] for line in logs if line["event"] == "lease lost"]
    assert (told, limited.cancelled) == (["taken"], ["taken"])


def test_a_time_limits_signal_that_comes_late_is_ignored() -> None:
    """It may arrive during the report, or while the next attempt runs."""
    passed_on: list[int] = []
    limited = Limited("one", "next")
    keeper = limited.keeper
    keeper._previous = lambda number, frame: passed_on.append(number)
    for step in ("one", "next"):
        keeper._interrupted = step
        with pytest.raises(SoftTimeLimitExceeded):
            keeper._on_signal(signal.SIGUSR1, None)
    keeper._interrupted = "one"
    keeper.ended(limited.held["one"])
    keeper._on_signal(signal.SIGUSR1, None)
    keeper._interrupted = "one"
    keeper.release(limited.held["one"])
    keeper._on_signal(signal.SIGUSR1, None)
    assert passed_on == []
    keeper._on_signal(signal.SIGUSR1, None)  # Celery's own limit
    assert passed_on == [signal.SIGUSR1]


def test_no_lease_is_renewed_for_a_thread_that_is_gone() -> None:
    """The lease expires even if the report was skipped, and the saga goes on."""
    limited = Limited("free", "timed")
    limited.threads["free"].is_gone = True
    with capture_logs() as logs:
        limited.pass_time(20)
    assert limited.renewed == [["timed"]]
    assert [(line["step"], line["why"]) for line in logs] == [("free", "its thread is gone")]


def test_no_lease_is_renewed_for_what_its_thread_has_left() -> None:
    """A thread runs one attempt at a time, so the next one ends the one before."""
    limited = Limited("before", "timed")
    limited.threads["free"] = limited.threads["before"]
    with capture_logs() as logs:
        limited._hold("free")
    limited.pass_time(20)
    assert limited.renewed == [["timed", "free"]]
    told = [(line["step"], line["why"]) for line in logs]
    assert told == [("before", "its thread has begun another")]


def test_what_keeps_its_own_time_out_is_renewed_and_left_alone() -> None:
    """An async attempt is cancelled by its own waiter."""
    limited = Limited("timed")
    limited.keeper._keeps_time = lambda token: token == "timed"
    limited.pass_time(200)
    assert (limited.told, limited.renewed) == ([], [["timed"]])


def test_what_an_async_function_gave_while_it_cleaned_up_is_not_timed_out() -> None:
    """Its result is checked after the waiter has left, within a limited time."""
    limited, waited_for = Limited("timed"), {"timed"}
    limited.keeper._keeps_time = waited_for.__contains__
    limited.pass_time(100.5)
    waited_for.clear()
    limited.pass_time(0.5)
    assert limited.told == []
    limited.pass_time(1.5)
    assert limited.told == ["timed"]
    limited.keeper.release(limited.held["timed"])
    assert limited.keeper._leases == {}


def test_the_doctor_shows_late_renewals(redis_url):
    """The doctor counts them by host, until the worker leaves."""
    made = host(redis_url)
    made.edge.run(made.catalog.publish("h1", ["io"], []))
    made.coordinator.claims.hostname = "h1"
    made.engine.count_late()
    check = checks.heartbeats(made.edge.run(made.catalog.late()))
    assert (check.status, check.message) == ("warn", "leases were renewed late: h1 1 times")
    made.edge.run(made.catalog.withdraw("h1"))
    assert made.edge.run(made.catalog.late()) == {}
    made.edge.close()


def test_threads_that_begin_at_once_share_one_keeper_of_leases(redis_url: str) -> None:
    """A lease in a second keeper would never be released."""
    engine = runtime_at(f"{redis_url.rpartition('/')[0]}/9")  # that no thread has used yet
    together = Barrier(8)

    def first_use(_: int) -> LeaseKeeper:
        together.wait()
        return engine.process().leases

    with ThreadPoolExecutor(8) as pool:
        keepers = list(pool.map(first_use, range(8)))
    assert len({id(keeper) for keeper in keepers}) == 1
