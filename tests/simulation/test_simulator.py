"""Does the whole system keep the laws while everything around it fails?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from multiagents.engine.sweeper import Sweeper
from multiagents.lab.simulator.faults import NO_FAULTS, SystemShape
from multiagents.lab.simulator.laws.saga import LawBroken
from multiagents.lab.simulator.store import Servers, own_servers
from multiagents.lab.simulator.survey import main, simulate
from multiagents.storage import sagas as store
from multiagents.storage.sagas import Guard

pytestmark = pytest.mark.single


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with own_servers() as found:
        yield found


def test_every_history_comes_to_rest_within_the_laws(servers: Servers) -> None:
    """300 seeds bring deaths, freezes and lost messages to systems of all shapes."""
    summary = simulate(range(200, 500), servers)
    assert summary.histories == 300
    assert {"completed", "compensated", "failed", "cancelled"} <= set(summary.states)
    assert summary.seen["reply lost"]
    assert summary.seen["died after a call"]
    assert summary.seen["server away"]
    assert summary.seen["server set back"]
    assert summary.seen["letter doubled"]
    assert summary.seen["plain task fenced"]


def test_lost_replies_alone_leave_nothing_behind(servers: Servers) -> None:
    """Each call may be executed twice (E3, E4)."""
    simulate(range(1010, 1070), servers, faults=replace(NO_FAULTS, reply_lost=0.3))


def test_letters_that_are_lost_and_doubled_are_made_good(servers: Servers) -> None:
    """Messages that commits published are resent, and claimed once (E10, E3)."""
    faults = replace(NO_FAULTS, lose_message=0.3, double_message=0.3)
    summary = simulate(range(2000, 2060), servers, faults=faults, shape=SystemShape(letters=True))
    assert summary.seen["letter lost"]
    assert summary.seen["letter doubled"]


def test_plain_tasks_are_claimed_on_their_behalf(servers: Servers) -> None:
    """Their messages come twice or never, before and after their timeout (E13)."""
    faults = replace(NO_FAULTS, lose_message=0.2, double_message=0.2, die_after=0.01)
    summary = simulate(range(3000, 3060), servers, faults=faults, shape=SystemShape(plain=0.8))
    assert summary.seen["plain task fenced"]


@pytest.mark.parametrize("letters", [True, False])
def test_a_task_of_which_no_message_can_be_made_fails_alone(
    servers: Servers, letters: bool
) -> None:
    """Before, after or within its claim's commit only its own step fails, clean."""
    faults = replace(NO_FAULTS, refuse_message=0.3, die_after=0.01, reply_lost=0.05)
    shape = SystemShape(letters=letters, plain=0.6)
    summary = simulate(range(3500, 3560), servers, faults=faults, shape=shape)
    assert summary.seen["message refused"]


def test_each_step_may_be_a_message(servers: Servers) -> None:
    """No process continues with a next step, so messages alone empty each outbox."""
    faults = replace(NO_FAULTS, lose_message=0.1, die_after=0.01)
    simulate(range(3600, 3660), servers, faults=faults, shape=SystemShape(continues=False))


def test_servers_may_be_away_for_a_while(servers: Servers) -> None:
    """Sagas on three servers go on once theirs is back."""
    faults = replace(NO_FAULTS, outage=0.02)
    summary = simulate(range(4100, 4160), servers, faults=faults, shape=SystemShape(3, 3))
    assert summary.seen["call to a server that is away"]


def test_a_server_may_lose_its_last_second(servers: Servers) -> None:
    """Processes from a lost future do nothing illegal, and nothing gets stuck (E5)."""
    faults = replace(NO_FAULTS, set_back=0.05)
    summary = simulate(range(5000, 5060), servers, faults=faults)
    assert summary.seen["server set back"]
    assert summary.states["lost with its server's last second"]


def test_a_seed_always_gives_the_same_history(servers: Servers) -> None:
    """A seed that broke a law can be run again."""
    first, second = (simulate(range(40), servers) for _ in range(2))
    assert (first.calls, first.states, first.seen) == (second.calls, second.states, second.seen)


def test_the_law_of_far_leases_allows_a_clock_that_is_a_little_ahead(servers: Servers) -> None:
    """The longest delay by a fast clock is 1 s longer by a correct one."""
    assert simulate([91014752], servers).calls


def test_the_command_line_counts_what_was_injected(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress goes to stderr, the table to stdout."""
    assert main(["--seed", "7", "--count", "20"]) == 0
    shown = capsys.readouterr()
    assert "20 histories" in shown.err
    assert "reply lost" in shown.out


STUCK = r"LawBroken: (stuck|\S+: (no decision over|left in outbox))"
"""Its state or its stored data says so."""


class ForgetfulSweeper(Sweeper):
    """Drops unclaimed commands instead of resending them."""

    async def handle(self, item: Guard) -> None:
        if item.member.startswith("o|"):
            keys = self._coordinator.repository.keys(item.member.split("|")[1])
            await store.drop(keys.shard, item, because=(keys.saga, "none", ""))
        else:
            await super().handle(item)


def test_a_sweeper_that_forgets_is_found_out(servers: Servers) -> None:
    """The simulator finds this planted bug within 300 seeds."""
    with pytest.raises(LawBroken, match=STUCK):
        simulate(range(200, 500), servers, make_sweeper=ForgetfulSweeper)


class CarelessSweeper(Sweeper):
    """Drops expired leases instead of logging the loss."""

    async def handle(self, item: Guard) -> None:
        letter, saga_id, *_ = item.member.split("|")
        if letter == "l":
            keys = self._coordinator.repository.keys(saga_id)
            await store.drop(keys.shard, item, because=(keys.saga, "none", ""))
        else:
            await super().handle(item)


def test_a_lease_that_nobody_ends_is_found_out(servers: Servers) -> None:
    """A dropped lease leaves a dead worker's saga stuck."""
    with pytest.raises(LawBroken, match=STUCK):
        simulate(range(200, 500), servers, make_sweeper=CarelessSweeper)


def test_the_command_spreads_its_seeds_over_processes() -> None:
    """Each process imports the survey anew and has a server of its own."""
    command = [sys.executable, "-m", "multiagents.lab.simulator", "--processes", "2"]
    ran = subprocess.run(
        [*command, "--count", "4"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "4 histories" in ran.stderr


def test_a_deadline_survives_a_sweep_by_a_clock_that_is_ahead(servers: Servers) -> None:
    """That sweep died before it acted, so the deadline was hidden for an hour (E9)."""
    simulate([96022094], servers)


def test_a_refused_saga_does_not_stop_the_hand_back_of_others(servers: Servers) -> None:
    """Its second look was refused, after the fleet had been read again."""
    simulate([95002044], servers)
