"""Does one list show all that needs an operator, with reasons and commands?"""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import pytest
import redis

from multiagents import Orchestrator, WorkflowBuilder, worker
from multiagents.cli.commands.attention import TITLES, laid_out
from multiagents.core.effects import Flow
from multiagents.core.exceptions import NotAllowed
from multiagents.core.states import Kind
from multiagents.operations.removal import Removal
from multiagents.storage import keys as k
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.workflows.workflow import Workflow
from tests.support.command_line import cli
from tests.support.office import Office

SHARD = Shard(0)


@worker("attention.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def order() -> Workflow:
    """Two steps with undo, a pivot and a step after it."""
    return (
        WorkflowBuilder("attention-order")
        .add_step("reserve", "attention.do", compensation="attention.do")
        .add_step("charge", "attention.do", compensation="attention.do")
        .add_step("pay", "attention.do", pivot=True)
        .add_step("mail", "attention.do")
        .build()
    )


# ---- each of these leaves one thing for a person ----


def pause(office: Office) -> str:
    saga_id = office.start(order())
    office.runtime.call("pause", saga_id, by="ada", reason="the bank is down")
    return saga_id


def terminate(office: Office) -> str:
    saga_id = office.start(order())
    office.succeed(saga_id, "reserve")
    office.runtime.call("terminate", saga_id, by="ada", reason="a mess")
    return saga_id


def park_undo(office: Office) -> str:
    saga_id = office.start(order())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"))
    office.fail(office.claim(saga_id, "charge", Kind.UNDO))
    held = office.claim(saga_id, "reserve", Kind.UNDO)
    office.runtime.host.engine.succeed(held, "{}", go_on=False)
    return saga_id


def park_step(office: Office) -> str:
    saga_id = office.start(order())
    for step in ("reserve", "charge", "pay"):
        office.succeed(saga_id, step)
    office.fail(office.claim(saga_id, "mail"))
    return saga_id


def cancel_late(office: Office) -> str:
    saga_id = office.start(order())
    for step in ("reserve", "charge"):
        office.succeed(saga_id, step)
    held = office.claim(saga_id, "pay")
    with pytest.raises(NotAllowed):
        office.runtime.call("cancel", saga_id)
    office.runtime.host.engine.succeed(held, "{}", go_on=False)
    office.succeed(saga_id, "mail")
    return saga_id


def damage(office: Office) -> str:
    saga_id = office.start(order())
    with redis.Redis.from_url(office.url) as client:
        client.delete(SagaKeys(saga_id).log)
    return saga_id


MAKERS = {
    "paused": pause,
    "terminated": terminate,
    "undo": park_undo,
    "step": park_step,
    "note": cancel_late,
    "damaged": damage,
}


def listed(office: Office, **given: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = office.runtime.call("attention", **given)
    return rows


def test_all_that_waits_is_listed_oldest_first(office: Office) -> None:
    """Each kind has a row; damaged sagas, whose age is unknown, come first."""
    made = [(kind, make(office)) for kind, make in MAKERS.items()]
    office.start(order())
    rows = listed(office)
    found = [(row["kind"], row["transaction_id"]) for row in rows]
    assert found == [made[-1], *made[:-1]]
    times = [row["since"] for row in rows[1:]]
    assert times == sorted(times)
    assert rows[0]["since"] is rows[0]["age_s"] is None
    assert [row["transaction_id"] for row in listed(office, limit=2)] == [
        saga_id for _, saga_id in found[:2]
    ]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("paused", "paused by ada: the bank is down"),
        ("terminated", "terminated without undo by ada: a mess; left as they are: reserve"),
        ("undo", "BankDown: the bank does not answer (after 1 attempt)"),
        ("step", "BankDown: the bank does not answer (after 1 attempt)"),
        ("note", "cancel came after the pivot: not undone"),
        ("damaged", "its log is missing"),
    ],
)
def test_each_says_why_and_its_commands_work_as_they_stand(
    office: Office, kind: str, says: str
) -> None:
    """Each command works once its reason is filled in, and then the list is empty."""
    row = _only(office, MAKERS[kind](office))
    assert (row["kind"], row["reason"]) == (kind, says)
    for number in range(len(row["commands"])):
        saga_id = row["transaction_id"] if number == 0 else MAKERS[kind](office)
        command = _only(office, saga_id)["commands"][number].replace("...", "by phone")
        done = cli(*shlex.split(command)[1:], url=office.url)
        assert done.code == 0, done.err
        if "explain" in command:
            office.runtime.call("resolve", saga_id, reason="seen")
        assert listed(office) == []


def _only(office: Office, saga_id: str) -> dict[str, Any]:
    (row,) = listed(office)
    assert row["transaction_id"] == saga_id
    return row


def test_a_saga_with_several_things_has_a_row_for_each(office: Office) -> None:
    """A paused saga with a parked step has two rows, and each one goes separately."""
    saga_id = park_step(office)
    office.runtime.call("pause", saga_id)
    assert [row["kind"] for row in listed(office)] == ["step", "paused"]
    office.runtime.call("skip", saga_id, reason="by phone")
    assert [row["kind"] for row in listed(office)] == ["paused"]
    office.runtime.call("resume", saga_id)
    assert listed(office) == []


def test_what_is_listed_and_gone_waits_for_nobody(office: Office) -> None:
    """The list skips indexed sagas that no longer exist."""
    with redis.Redis.from_url(office.url) as client:
        client.zadd(SHARD.attention, {"gone": 1})
        client.zadd(SHARD.state("paused"), {"gone": 1, office.start(order()): 2})
    assert listed(office) == []


def test_a_damaged_saga_that_sweeps_meet_is_found_among_any_number(office: Office) -> None:
    """The list finds it, although it is not among the newest of its state."""
    saga_id = damage(office)
    with redis.Redis.from_url(office.url) as client:
        for index in (SHARD.sagas, SHARD.state("running")):
            client.zrem(index, saga_id)
        assert listed(office) == []
        client.hset(SHARD.stuck, k.due_dirty(saga_id), "3|1|DamagedSaga: it is damaged")
        client.hset(SHARD.stuck, k.due_definitions(SHARD), "3|1|no saga's")
    assert _only(office, saga_id)["kind"] == "damaged"


def test_a_short_list_reads_few_sagas(office: Office) -> None:
    """The indexes give the first sagas, however many there are."""
    first = park_undo(office)
    for _ in range(12):
        park_undo(office)
        pause(office)
    calls = 0

    def counted(flow: Flow[Any]) -> Any:
        nonlocal calls
        answer: Any = None
        try:
            while True:
                effect = flow.send(answer)
                calls += 1
                answer = office.runtime.edge.execute(effect)
        except StopIteration as done:
            return done.value

    service = office.runtime.host.service
    removal: Any = service.parts[Removal]
    removal.damaged = lambda *_, **__: _nothing()  # it reads all
    try:
        (row,) = counted(service.attention(limit=1))
        least = calls
        calls = 0
        assert len(counted(service.attention(limit=None))) == 25
    finally:
        del removal.damaged
    assert row["transaction_id"] == first
    assert least < calls / 4


async def _nothing() -> dict[str, str]:
    return {}


# ---- faces ----


def test_an_asyncio_program_gets_the_same_list(office: Office) -> None:
    """The async face has the same operation."""
    saga_id = pause(office)

    async def ask() -> list[dict[str, Any]]:
        async with Orchestrator(order(), state_store=office.url) as orchestrator:
            rows: list[dict[str, Any]] = await orchestrator.attention(limit=5)
            return rows

    (row,) = asyncio.run(ask())
    assert (row["transaction_id"], row["by"], row["why"]) == (saga_id, "ada", "the bank is down")


def test_the_command_prints_blocks_or_lines_of_json(office: Office) -> None:
    """Each command to copy has its own line, and an empty list is no error."""
    assert cli("attention", url=office.url).out == "nothing waits for an operator\n"
    saga_id, parked = pause(office), park_step(office)
    shown = cli("attention", url=office.url)
    first, second, rest = shown.out.split("\n\n")
    assert first.splitlines()[1:] == [
        "paused by ada: the bank is down",
        f"  multiagents resume {saga_id}",
    ]
    assert first.startswith("paused (")
    assert second.splitlines()[0].endswith(f": attention-order {parked}")
    assert second.startswith("step mail parked (")
    assert rest == "The cause, and all possible actions for one saga:\n  multiagents explain ID\n"
    lines = cli("attention", "--json", url=office.url).lines
    assert [(row["kind"], row["transaction_id"]) for row in lines] == [
        ("paused", saga_id),
        ("step", parked),
    ]
    short = cli("attention", "--limit", "1", url=office.url).out
    assert "At most 1 are shown; more with --limit." in short
    assert parked not in short


def test_at_80_columns_ids_and_commands_stay_whole(office: Office) -> None:
    """A long reason wraps between words."""
    for make in MAKERS.values():
        make(office)
    rows = listed(office)
    assert {row["kind"] for row in rows} <= TITLES.keys()
    rows[1]["reason"] = "word " * 60
    lines = laid_out(rows, width=80).splitlines()
    typed = "\n".join(lines).replace("\\\n", " ").splitlines()
    for row in rows:
        assert row["commands"][0] in [" ".join(line.split()) for line in typed]
        assert any(row["transaction_id"] in line for line in lines if line[:1] != " ")
    assert max(map(len, lines)) <= 80


def test_alike_ones_share_a_block_on_a_terminal(office: Office) -> None:
    """The block has all ids and one command; programs and pipes get one row each."""
    paused = [pause(office) for _ in range(3)]
    parked = [park_step(office) for _ in range(2)]
    ended = [terminate(office) for _ in range(2)]
    rows = listed(office)
    assert laid_out(rows, width=None).count("multiagents ") == 7
    blocks = laid_out(rows, width=80).split("\n\n")
    assert [block.splitlines()[0].partition(": ")[2] for block in blocks] == [
        "attention-order 3 sagas",
        "attention-order 2 sagas",
        "attention-order 2 sagas",
    ]
    assert f"multiagents resume {' '.join(paused)}" in typed_in(blocks[0])
    assert typed_in(blocks[1])[-1] == (
        "multiagents dead-letters retry --all --workflow attention-order --step mail --kind step"
    )
    assert [line.strip() for line in blocks[1].splitlines()[1:3]] == parked
    assert typed_in(blocks[2])[-1] == 'multiagents dead-letters resolve ID --reason "..."'
    assert [line.strip() for line in blocks[2].splitlines()[1:3]] == ended
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80


def test_what_differs_stands_apart_on_a_terminal(office: Office) -> None:
    """Another reason or another operator makes another block."""
    pause(office)
    other = office.start(order())
    office.runtime.call("pause", other, by="bob", reason="the bank is down")
    assert len(laid_out(listed(office), width=80).split("\n\n")) == 2


def typed_in(block: str) -> list[str]:
    """The commands of a block, each on one line."""
    whole = block.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in whole if line.startswith("  ")]


def test_doctor_counts_the_same(office: Office) -> None:
    """The doctor counts each saga once, paused ones too, and names the command."""
    for make in (pause, terminate, park_undo):
        make(office)
    both = park_step(office)
    office.runtime.call("pause", both)
    checks = {each["name"]: each for each in cli("doctor", "--json", url=office.url).json["checks"]}
    found = checks["attention"]
    assert found["message"].startswith("4 sagas wait for an operator (2 paused): ")
    assert "`multiagents attention`" in found["fix"]
    assert {row["transaction_id"] for row in listed(office)} == {
        each.strip() for each in found["message"].partition("): ")[2].split(",")
    }
