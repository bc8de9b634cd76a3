"""Can an operator find sagas among many by their known properties?"""

from __future__ import annotations

from typing import Any

import pytest
import redis

from multiagents.cli.commands import query
from multiagents.cli.commands.query import Listed
from multiagents.core.entries import Failure
from multiagents.core.ports import Verdict
from multiagents.core.states import Kind, SagaState
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.workflows import registry
from tests.support.command_line import cli, on_terminal
from tests.support.look import ORDER, lines_of, start, undone
from tests.support.office import Office


def listed(office: Office, *words: str) -> list[str]:
    done = cli("list", *words, "--json", url=office.url)
    assert done.code == 0, done.err
    return [row["transaction_id"] for row in done.lines]


def test_sagas_are_found_by_values_of_their_input(office: Office) -> None:
    """Filters take plain and dotted keys of any type; all must match; the limit counts matches."""
    order = {"sku": "A17", "amount": 5, "paid": True, "customer": {"id": 7}, "items": [{"n": 2}]}
    wanted = [start(office, {**order, "n": n}) for n in range(3)]
    for n in range(120):
        start(office, {"sku": "B2", "amount": n})
    assert listed(office, "--input", "sku=A17") == wanted[::-1]
    assert listed(office, "--input", "sku=A17", "--limit", "2") == wanted[:0:-1]
    inside = ("--input", "customer.id=7", "--input", "items.0.n=2", "--input", "n=1")
    assert listed(office, *inside, "--input", "paid=true") == [wanted[1]]
    for nothing in ("sku=a17", "paid=1", "amount=true", "items.9.n=2", "customer=7", "gone=null"):
        assert listed(office, "--input", nothing) == []
    assert len(office.runtime.call("list", input={"sku": "A17"}, offset=1)) == 2
    assert office.runtime.call("list", input={"paid": 1}) == []


def test_sagas_are_found_by_key_error_and_time(office: Office) -> None:
    """Filters search keys of all or one workflow, and errors of sagas, steps and undos."""
    keyed = start(office, idempotency_key="order-17")
    failing = start(office)
    undone(office, failing)
    named = ("--key", "order-17", "--workflow", "look-order")
    assert listed(office, *named) == [keyed]
    ORDER.register()
    try:
        assert listed(office, "--key", "order-17") == [keyed]
        assert listed(office, "--key", "order-18") == []
    finally:
        registry.forget(ORDER.name)
    assert listed(office, *named, "--state", "failed") == []
    assert listed(office, *named, "--until", "1h") == []
    assert listed(office, "--error", "bankDOWN: the bank") == [failing]
    assert listed(office, "--error", "bank", "--state", "running") == []
    assert listed(office, "--since", "1h") == [failing, keyed]
    assert listed(office, "--since", "1h", "--state", "running") == [keyed]
    assert listed(office, "--until", "1h") == listed(office, "--until", "yesterday") == []
    assert listed(office, "--since", "2020-01-01T00:00", "--limit", "1") == [failing]


def test_a_list_shows_the_error_that_it_was_asked_for(office: Office) -> None:
    """The list shows the matching error of a step or undo; `--json` has all of them."""
    saga_id = start(office)
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"))
    office.runtime.host.engine.fail(
        office.claim(saga_id, "charge", Kind.UNDO),
        Verdict(Failure("Closed", "come back at nine"), retryable=False),
        go_on=False,
    )
    told = cli("list", "--error", "AT NINE", url=office.url).out
    assert "undo of charge: Closed: come back at nine" in told
    assert "BankDown" not in told
    assert "charge: BankDown" in cli("list", "--error", "bank", url=office.url).out
    row = cli("list", "--error", "at nine", "--json", url=office.url).json
    assert row["steps"]["charge"]["compensation"]["error"]["type"] == "Closed"


def test_a_list_shows_of_the_input_what_is_asked_for(office: Office) -> None:
    """Each chosen field gets a column within 80 columns; `--json` has the whole input."""
    given = {"sku": "A17", "customer": {"id": 7}, "items": [{"n": 1}]}
    saga_id, other = start(office, given), start(office)
    rows = cli("list", "--json", url=office.url).lines
    assert [row["input"] for row in rows] == [{}, given]
    assert [row["input"] for row in office.runtime.call("list")] == [{}, given]
    shows = ("--show", "sku", "--show", "customer.id", "--show", "items")
    header, first, second = cli("list", *shows, url=office.url).out.splitlines()
    assert header.split()[:5] == ["SAGA", "SKU", "CUSTOMER.ID", "ITEMS", "WORKFLOW"]
    assert first.split()[:4] == [other, "-", "-", "-"]
    assert second.startswith(f'{saga_id}  A17  7            [{{"n": 1}}]  look-order')
    lines = lines_of(on_terminal("list", *shows[:4], url=office.url))
    assert [saga_id, "A17", "7"] in [line.split()[:3] for line in lines]


def test_a_list_of_an_unknown_workflow_says_what_was_meant(office: Office) -> None:
    """For sagas and dead letters, the suggestion is on stderr, also with --json."""
    start(office)
    registry.register(ORDER)
    try:
        for words in (("list",), ("dead-letters", "list"), ("list", "--json")):
            done = cli(*words, "--workflow", "look-ordr", url=office.url)
            assert done.err == "unknown workflow 'look-ordr'; did you mean look-order?\n"
            assert done.code == 0
        known = cli("list", "--workflow", "look-order", "--state", "failed", url=office.url)
        assert (known.out, known.err) == ("no saga fits\n", "")
    finally:
        registry.forget(ORDER.name)


def test_a_list_shows_key_and_duration(office: Office) -> None:
    """The duration is null while a saga runs, and seconds after its end."""
    saga_id = start(office, idempotency_key="order-17")
    row = cli("list", "--json", url=office.url).json
    assert (row["idempotency_key"], row["duration_s"]) == ("order-17", None)
    office.runtime.call("terminate", saga_id)
    row = cli("list", "--json", url=office.url).json
    assert row["duration_s"] >= 0
    assert row["error"]["type"] == "Terminated"


def test_damaged_sagas_are_listed_by_their_state(office: Office) -> None:
    """`--state damaged` lists them; every other state leaves them out."""
    start(office)
    broken = start(office)
    with redis.Redis.from_url(office.url) as client:
        client.delete(SagaKeys(broken).log)
    assert listed(office, "--state", "damaged") == [broken]
    assert listed(office, "--state", "damaged", "--input", "a=1") == []
    assert broken not in listed(office, "--state", "running")
    shown = lines_of(on_terminal("list", "--state", "damaged", url=office.url))
    assert shown[1].endswith("its log is missing")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--since", "soon"), "since is 'soon'; expected a time ago (30m, 2h, 7d)"),
        (("--until", "2026-13-01"), "until is '2026-13-01'; expected"),
        (("--since", "1h", "--until", "2h"), "until (2h) is before since (1h)"),
        (("--error", ""), "--error is empty; leave it out"),
        (("--workflow", " "), "--workflow is empty; leave it out"),
        (("--tag", ""), "--tag is empty; leave it out"),
        (("--key", ""), "--key is empty; leave it out"),
        (("--input", "sku"), "--input is 'sku'; expected NAME=VALUE, such as sku=A17"),
    ],
)
def test_a_filter_that_says_nothing_is_wrong_use(
    office: Office, words: tuple[str, ...], expected: str
) -> None:
    """An empty filter gives one line with what was expected."""
    done = cli("list", *words, url=office.url)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert expected in done.err


def test_every_state_and_damaged_can_be_listed() -> None:
    """The choices of --state are complete."""
    assert [str(each) for each in Listed] == [*map(str, SagaState), "damaged"]


def test_a_long_search_says_how_far_it_is(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search reports progress on stderr every 100 sagas, and says if there may be more."""
    for _ in range(101):
        start(office)
    cut = cli("list", url=office.url)
    assert len(cut.out.splitlines()) == 51
    assert cut.err == "the newest 50 are shown; more with --limit\n"
    monkeypatch.setattr(query, "PROGRESS_S", 0.0)
    done = cli("list", "--input", "sku=A17", url=office.url)
    assert done.out == "no saga fits\n"
    assert done.err.splitlines() == [
        "100 sagas read, 0 fit",
        "101 sagas read, 0 fit",
    ]


def test_offsets_and_limits_count_what_fits(office: Office) -> None:
    """They count matches, also where only one of two filters has an index."""
    ids = [start(office, tags=["web"] if n % 2 else []) for n in range(8)]
    for saga_id in ids[::3]:
        office.runtime.call("pause", saga_id)
    found = [ids[n] for n in range(7, -1, -1) if n % 2 and n % 3 == 0]
    call = office.runtime.call

    def names(**filters: Any) -> list[str]:
        return [row["transaction_id"] for row in call("list", **filters)]

    assert names(tag="web", state="paused") == found == [ids[3]]
    assert names(limit=3, offset=2) == ids[5:2:-1]
    assert names(state="paused", limit=2, offset=1) == [ids[3], ids[0]]
    assert names(workflow="look-order", state="paused", offset=1) == [ids[3], ids[0]]


def test_a_lost_saga_does_not_shorten_the_list(office: Office) -> None:
    """The list skips an indexed saga that is gone, and shows the next one instead."""
    first, gone, last = (start(office) for _ in range(3))
    with redis.Redis.from_url(office.url) as client:
        keys = SagaKeys(gone)
        client.delete(*keys.all[:5])
        assert client.zscore(Shard(0).sagas, gone)
    assert listed(office, "--limit", "2") == [last, first]


@pytest.mark.parametrize(
    "message",
    ['no "courier"\\ goes', "kein Kurier fährt\nnach 東京", "a: b: c's (d)", "", "TEA, 5.0 €: _x_"],
)
def test_an_error_is_found_by_any_part_of_it(office: Office, message: str) -> None:
    """A search matches characters that JSON escapes, and across type and message."""
    saga_id = start(office)
    office.succeed(saga_id, "reserve")
    verdict = Verdict(Failure("BankDown", message), retryable=False)
    office.runtime.host.engine.fail(office.claim(saga_id, "charge"), verdict, go_on=False)
    start(office)
    whole = f"BankDown: {message}"
    for first in range(len(whole)):
        found = office.runtime.call("list", error=whole[first : first + 9].upper())
        assert [row["transaction_id"] for row in found] == [saga_id]
    assert office.runtime.call("list", error=f"{whole}!") == []


def test_filters_with_an_index_spare_the_sagas_that_they_leave_out(office: Office) -> None:
    """The search reads none of a hundred sagas that stand in one index only."""
    for _ in range(100):
        start(office)
    wanted = start(office, {"sku": "A17"}, tags=["web"])
    undone(office, wanted)
    ways: list[dict[str, Any]] = [
        {"workflow": ORDER.name, "state": "compensating"},
        {"tag": "web", "state": "compensating", "workflow": ORDER.name},
        {"input": {"sku": "A17"}},
        {"error": "bank does"},
    ]
    with redis.Redis.from_url(office.url) as client:
        for filters in ways:
            client.config_resetstat()
            found = office.runtime.call("list", **filters)
            assert [row["transaction_id"] for row in found] == [wanted]
            counted = client.info("commandstats")
            assert sum(each["calls"] for name, each in counted.items() if "evalsha" in name) <= 6
