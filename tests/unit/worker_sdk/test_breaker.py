"""Does an open circuit spare a failing service in every process, and close again?

The store is the real server; only the test advances the clock.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from multiagents.core.clock import FakeClock
from multiagents.storage import breaker as store
from multiagents.storage.breaker import Limits, Permit
from multiagents.storage.client import Edge

LIMITS = Limits(failure_threshold=0.5, min_calls=4, window_ms=60_000, open_ms=30_000)
OPEN = "open"
CLOSED = "closed"


class Circuit:
    """One breaker, as successive processes would use it."""

    def __init__(self, edge: Edge, clock: FakeClock) -> None:
        self._edge, self._clock = edge, clock
        self._asked = 0

    def ask(self, nonce: str = "") -> Permit:
        self._asked += 1
        now_ms = self._clock.now_ms()
        call = store.ask("shop", LIMITS, now_ms=now_ms, nonce=nonce or f"n{self._asked}")
        return self._edge.execute(call)  # type: ignore[no-any-return]  # a Call[Permit]

    def tell(self, ok: bool, *, probe: bool = False) -> str:
        call = store.tell("shop", LIMITS, now_ms=self._clock.now_ms(), ok=ok, probe=probe)
        return str(self._edge.execute(call))


@pytest.fixture
def circuit(edge: Edge, clock: FakeClock) -> Circuit:
    return Circuit(edge, clock)


def test_it_opens_when_the_share_of_failures_is_reached(circuit: Circuit) -> None:
    """The circuit opens only after enough calls to judge by."""
    assert [circuit.tell(ok) for ok in (False, False, False)] == [CLOSED] * 3
    assert circuit.ask() == Permit(allowed=True)
    assert circuit.tell(True) == OPEN
    assert circuit.ask() == Permit(allowed=False, wait_ms=30_000)


def test_below_the_share_it_stays_closed(circuit: Circuit) -> None:
    """Two successes per failure keep it closed."""
    assert {circuit.tell(ok) for ok in (True, True, False) * 10} == {CLOSED}


def test_failures_of_long_ago_do_not_count(circuit: Circuit, clock: FakeClock) -> None:
    """The window slides by tenths, so old failures leave it."""
    for _ in range(3):
        circuit.tell(False)
    clock.advance(66)
    assert circuit.tell(False) == CLOSED
    clock.advance(50)
    assert [circuit.tell(False) for _ in range(3)] == [CLOSED, CLOSED, OPEN]


def test_one_probe_goes_through_when_the_time_is_over(circuit: Circuit, clock: FakeClock) -> None:
    """All other calls wait for the probe's outcome."""
    _open(circuit)
    clock.advance(29.999)
    assert circuit.ask() == Permit(allowed=False, wait_ms=1)
    clock.advance(0.001)
    assert circuit.ask() == Permit(allowed=True, probe=True)
    assert circuit.ask() == Permit(allowed=False, wait_ms=30_000)


def test_a_probe_that_succeeds_closes_and_starts_counting_anew(
    circuit: Circuit, clock: FakeClock
) -> None:
    """The earlier failures no longer count."""
    _open(circuit)
    clock.advance(30)
    circuit.ask()
    assert circuit.tell(True, probe=True) == CLOSED
    assert circuit.ask() == Permit(allowed=True)
    assert [circuit.tell(False) for _ in range(4)] == [CLOSED] * 3 + [OPEN]


def test_a_probe_that_fails_opens_again_for_the_full_time(
    circuit: Circuit, clock: FakeClock
) -> None:
    """The time runs from the probe's failure."""
    _open(circuit)
    clock.advance(30)
    circuit.ask()
    clock.advance(10)
    assert circuit.tell(False, probe=True) == OPEN
    assert circuit.ask() == Permit(allowed=False, wait_ms=30_000)


def test_a_probe_whose_process_died_is_followed_by_another(
    circuit: Circuit, clock: FakeClock
) -> None:
    """A slow probe's late success still closes the circuit."""
    _open(circuit)
    clock.advance(30)
    assert circuit.ask().probe
    clock.advance(30)
    assert circuit.ask().probe
    assert circuit.tell(True, probe=True) == CLOSED
    assert circuit.tell(True, probe=True) == CLOSED


def test_a_call_that_began_before_it_opened_changes_nothing(circuit: Circuit) -> None:
    """A late success of an older call does not close the circuit."""
    _open(circuit)
    assert circuit.tell(True) == OPEN
    assert not circuit.ask().allowed


def test_a_probe_asked_for_twice_is_granted_twice(circuit: Circuit, clock: FakeClock) -> None:
    """The first reply may have got lost."""
    _open(circuit)
    clock.advance(30)
    assert circuit.ask("same") == circuit.ask("same") == Permit(allowed=True, probe=True)


def test_of_many_callers_at_once_one_is_the_probe(circuit: Circuit, clock: FakeClock) -> None:
    """The script chooses one probe among concurrent callers."""
    _open(circuit)
    clock.advance(30)
    with ThreadPoolExecutor(8) as threads:
        permits = list(threads.map(lambda number: circuit.ask(f"t{number}"), range(40)))
    assert [permit.probe for permit in permits].count(True) == 1
    assert [permit.allowed for permit in permits].count(True) == 1


def test_nothing_stays_in_redis_for_ever(circuit: Circuit, edge: Edge) -> None:
    """Every state of the key expires."""
    circuit.tell(False)
    assert 0 < edge.client.pttl(store.key("shop")) <= 60_000
    _open(circuit)
    assert 0 < edge.client.pttl(store.key("shop")) <= 86_400_000 + 30_000


def _open(circuit: Circuit) -> None:
    states = [circuit.tell(False) for _ in range(LIMITS.min_calls)]
    assert OPEN in states
