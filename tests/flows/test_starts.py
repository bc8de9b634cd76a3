"""Which saga does a start lead to, and which ids find it again?

All in process; tests/processes/celery/test_team_app.py has the cases with a worker.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

import multiagents
from multiagents import (
    IdempotencyConflict,
    InvalidInput,
    UnknownSaga,
    WorkflowBuilder,
    app,
    sagas,
    start_saga,
    worker,
)
from multiagents.core import ids
from multiagents.hosting.start_task import IN_ASYNCIO, NOT_A_FUNCTION
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.workflows import registry
from tests.support import basic_workers  # noqa: F401 - registers "echo" and others
from tests.support.eager_server import lab_on


@worker("starts_park", retry=1)
def park(context):
    raise ValueError("not undone")


(
    WorkflowBuilder("starts_parked")
    .add_step("first", "echo", compensation="starts_park", compensation_retry=1)
    .add_step("second", "starts_park")
    .build()
    .register()
)
ECHO = {"text": "hi"}


def ids_of(saga: dict[str, Any]) -> list[str]:
    """All Celery ids that a saga shows."""
    found = list(saga["task_ids"])
    for step in saga["steps"].values():
        found += [step["task_id"], (step["compensation"] or {}).get("task_id")]
    return [each for each in found if each]


# ---- one key, one saga ----


def test_the_id_of_every_start_under_a_key_leads_to_the_saga(saga_lab):
    """An API may hand out the id of either start."""
    first = start_saga.delay("echoes", ECHO, idempotency_key="k")
    later = start_saga.delay("echoes", ECHO, idempotency_key="k")
    [saga] = sagas.list()
    assert len({first.id, later.id, saga["transaction_id"]}) == 3
    for each in (first.id, later.id, saga["transaction_id"]):
        assert sagas.get(each)["transaction_id"] == saga["transaction_id"]
    assert set(sagas.get(first.id)["task_ids"]) == {first.id, later.id}


def test_the_same_key_with_another_input_is_refused(saga_lab):
    """The message names key, saga and difference, and shows no value."""
    first = start_saga.delay("echoes", {"text": "secret", "n": 1}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict, match="idempotency_key 'k' of workflow 'echoes'") as no:
        start_saga.delay("echoes", {"text": "hidden", "m": 1}, idempotency_key="k")
    assert no.value.transaction_id == sagas.get(first.id)["transaction_id"]
    assert no.value.transaction_id in str(no.value)
    assert "other: 'text', 'n', 'm'" in str(no.value)
    assert "secret" not in str(no.value)
    assert sagas.get(first.id)["task_ids"] == [first.id]


def test_a_refused_start_waits_for_nothing_and_leaves_nothing(saga_lab):
    """Its id belongs to no saga."""
    start_saga.delay("echoes", ECHO, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        start_saga.apply_async(("echoes", {}), {"idempotency_key": "k"}, task_id="late")
    with pytest.raises(UnknownSaga):
        sagas.get("late")


@pytest.mark.parametrize("again", [{"n": 1, "deep": {"x": 1, "y": [1.5, None]}}])
def test_inputs_are_compared_by_their_content(saga_lab, again):
    """The order of keys does not matter."""
    given = {"deep": {"y": [1.5, None], "x": 1}, "n": 1}
    first = sagas.start("echoes", given, idempotency_key="k")
    assert sagas.start("echoes", again, idempotency_key="k") == first
    for other in ({**given, "n": True}, {**given, "n": "1"}, {**given, "more": None}):
        with pytest.raises(IdempotencyConflict):
            sagas.start("echoes", other, idempotency_key="k")


def test_who_asks_for_the_first_saga_is_given_it_whatever_the_input(saga_lab):
    """``on_conflict="first"`` asks for it; other words are refused."""
    first = start_saga.delay("echoes", ECHO, idempotency_key="k")
    later = start_saga.delay("echoes", {}, idempotency_key="k", on_conflict="first")
    assert later.get() == first.get()
    with pytest.raises(InvalidInput, match="on_conflict is 'last'; expected 'refuse' or 'first'"):
        start_saga.delay("echoes", {}, idempotency_key="k", on_conflict="last")


def test_a_key_is_one_workflows_own(saga_lab):
    """An order and its refund may share a key."""
    one = sagas.start("echoes", ECHO, idempotency_key="k")
    assert sagas.start("starts_parked", {}, idempotency_key="k") != one


def test_a_saga_from_before_digests_is_compared_by_its_input(saga_lab):
    """Earlier versions stored no digest."""
    first = sagas.start("echoes", {"a": 1, "b": 2}, idempotency_key="k")
    client = saga_lab._eager.host.edge.client
    assert client.hdel(SagaKeys(first).data, "digest") == 1
    assert sagas.start("echoes", {"b": 2, "a": 1}, idempotency_key="k") == first
    with pytest.raises(IdempotencyConflict):
        sagas.start("echoes", {"b": 2}, idempotency_key="k")


def test_the_ids_of_starts_are_removed_with_their_saga(saga_lab):
    """Retention leaves nothing behind (E16)."""
    result = start_saga.delay("echoes", ECHO, idempotency_key="k")
    client = saga_lab._eager.host.edge.client
    assert client.hlen(Shard().aliases) == 1
    saga_lab.advance(8 * 86_400)
    assert client.exists(Shard().aliases) == 0
    with pytest.raises(UnknownSaga):
        sagas.get(result.id)


def test_ids_of_starts_are_found_on_every_shard(redis_url, monkeypatch):
    """The id does not name its saga's shard."""
    from multiagents.core.settings import Settings

    with lab_on(redis_url, Settings(redis_url=redis_url, shards=5)) as lab:
        for number in range(8):
            name, key = f"t{number}", f"k{number}"
            saga_id = lab._eager.call("start", "echoes", ECHO, idempotency_key=key, task_id=name)
            assert lab.get(name)["transaction_id"] == saga_id


# ---- ids of steps ----


def test_every_id_that_a_saga_shows_leads_to_it(saga_lab):
    """Ids of starts, step messages and compensations work in every query."""
    result = start_saga.delay("starts_parked", {}, idempotency_key="k")
    saga = sagas.get(result.id)
    found = ids_of(saga)
    assert len(found) == 4  # a start, two steps, one undo
    for each in found:
        assert sagas.get(each) == saga
        assert sagas.history(each) == sagas.history(saga["transaction_id"])
        assert sagas.explain(each) == sagas.explain(saga["transaction_id"])
        letters = sagas.dead_letters(saga_id=each)
        assert letters == sagas.dead_letters(saga_id=saga["transaction_id"]) != []


def test_an_earlier_attempts_id_leads_to_its_saga_and_a_later_one_does_not(saga_lab):
    """Attempts count from one; the id ends with the attempt's number."""
    saga_lab.fail("only", attempt=1)
    saga_id = sagas.start(
        WorkflowBuilder("again").add_step("only", "echo", retry={"backoff_s": 0}).build(), ECHO
    )
    assert sagas.get(saga_id)["steps"]["only"]["task_id"] == f"{saga_id}:only:2"
    assert sagas.get(f"{saga_id}:only:1")["transaction_id"] == saga_id
    for nobody in ("only:3", "only:0", "only:undo1", "other:1", "only:01", ":1"):
        with pytest.raises(UnknownSaga):
            sagas.get(f"{saga_id}:{nobody}")


def test_a_steps_id_names_the_step_to_retry_and_moves_no_whole_saga(saga_lab):
    """A message's id must not stop or undo the whole saga."""
    saga_id = sagas.start("starts_parked", {}, idempotency_key="k")
    undo_id = sagas.get(saga_id)["steps"]["first"]["compensation"]["task_id"]
    assert undo_id == f"{saga_id}:first:undo1"
    for command in ("pause", "resume", "cancel", "rollback", "terminate"):
        with pytest.raises(InvalidInput, match=f"give the id of the saga, {saga_id}"):
            getattr(sagas, command)(undo_id)
    sagas.resolve(undo_id, reason="by hand")
    entry = next(e for e in sagas.history(saga_id) if e["type"] == "asked")
    assert entry["step"] == "first"


def test_a_starts_id_moves_the_saga(saga_lab):
    """A client can cancel by the id it got."""
    result = start_saga.delay("echoes", ECHO, idempotency_key="k")
    assert sagas.rollback(result.id, reason="wrong order")["state"] == "compensated"


@pytest.mark.parametrize(
    ("saga_id", "step"), [("s", "a"), ("a:b:1", "c.d-e"), ("x" * 200, "y" * 128), ("ü|", "z")]
)
def test_the_id_of_a_message_leads_back_and_fits_every_broker(saga_id: str, step: str) -> None:
    """AMQP allows 255 bytes, and the saga's own id is never cut."""
    for kind, attempt in (("run", 1), ("undo", 12_345)):
        made = ids.step_id(saga_id, kind, step, attempt)
        assert ids.saga_of(made) == saga_id
        assert len(made.encode()) <= 255


@pytest.mark.parametrize("given", [None, 1.5, b"x", "\ud800", "", "nobody", "a:b:1", ["x"]])
def test_what_can_be_no_id_is_an_unknown_saga(saga_lab, given):
    """No other error is raised."""
    for look in (sagas.get, sagas.history, sagas.explain, sagas.cancel, sagas.retry):
        with pytest.raises(UnknownSaga):
            look(given)


# ---- how a start is called ----


@pytest.mark.parametrize("given", [uuid.uuid4(), 42, "order|42"])
def test_a_task_id_may_be_a_uuid_or_a_number(saga_lab, given):
    """Both forms find the saga."""
    result = start_saga.apply_async(("echoes", ECHO), task_id=given)
    assert result.id == str(given)
    assert sagas.get(given)["transaction_id"] == str(given)


@pytest.mark.parametrize("given", ["a\nb", b"x", "\ud800", "x" * 300])
def test_a_task_id_that_cannot_be_used_is_refused_before_anything_is_stored(saga_lab, given):
    """Every way to start refuses it."""
    with pytest.raises(InvalidInput, match="a task id is"):
        start_saga.apply_async(("echoes", ECHO), task_id=given)
    with pytest.raises(InvalidInput, match="a task id is"):
        start_saga.apply_async(("echoes", ECHO), task_id=given, countdown=1)
    with pytest.raises(InvalidInput, match="a task id is"):
        sagas.start("echoes", ECHO, task_id=given)
    assert sagas.list() == []


def test_a_key_may_be_the_third_argument(saga_lab):
    """Any text there is the key; another value is a TypeError with advice."""
    first = start_saga.delay("echoes", ECHO, "k")
    assert start_saga.delay("echoes", ECHO, idempotency_key="k").get() == first.get()
    assert len(sagas.list()) == 1
    with pytest.raises(TypeError, match=r"the third is dict.*start_saga\.si"):
        start_saga.delay({"from": "the task before"}, "echoes", ECHO)
    with pytest.raises(TypeError, match="there are 4 arguments"):
        start_saga.delay("echoes", ECHO, "k", "more")


@pytest.mark.parametrize("key", ["", "x" * 129, 5, "\ud800"])
def test_a_key_that_cannot_be_used_is_refused(saga_lab, key):
    """The message is safe to print."""
    with pytest.raises((InvalidInput, TypeError)) as caught:
        sagas.start("echoes", ECHO, idempotency_key=key)
    assert str(caught.value).isascii()


def test_maps_start_every_saga_and_give_their_ids(saga_lab):
    """``starmap``, ``map`` and ``chunks`` call the task as a function per item."""
    items = [("echoes", {"text": str(number)}) for number in range(3)]
    found = start_saga.starmap(items).apply_async().get()
    assert [sagas.get(each)["input"]["text"] for each in found] == ["0", "1", "2"]
    assert len(start_saga.map(["echoes", "echoes"]).apply_async().get()) == 2
    chunks = [each.get() for each in start_saga.chunks(items, 2).group().apply_async()]
    assert [len(chunk) for chunk in chunks] == [2, 1]
    assert len(sagas.list()) == 8


def test_a_map_that_runs_again_starts_nothing_twice(saga_lab):
    """The sagas' ids follow from the map's own id, which a redelivery keeps."""
    again = start_saga.starmap([("echoes", ECHO), ("echoes", ECHO)])
    first = again.apply_async(task_id="map-1").get()
    assert again.apply_async(task_id="map-1").get() == first
    assert len(set(first)) == len(sagas.list()) == 2


def test_called_like_a_function_it_starts_nothing_and_says_what_does(saga_lab):
    """Any arguments give an error that names the three ways to start."""
    for arguments in (("echoes", ECHO), ("unknown",), ("echoes", ECHO, {"no": "key"})):
        with pytest.raises(InvalidInput, match=r"start_saga\.delay\(.*sagas\.start\(.*await"):
            start_saga(*arguments)
    with pytest.raises(InvalidInput, match=r"start_saga\.delay"):
        start_saga.run("echoes", ECHO)
    assert sagas.list() == []


def test_the_way_in_asyncio_can_be_typed_as_it_is_said(saga_lab):
    """The statement makes an ``orchestrator`` of the workflow first."""
    assert IN_ASYNCIO in NOT_A_FUNCTION
    names = {"WORKFLOW": registry.find("echoes"), "INPUT": ECHO, "multiagents": multiagents}
    exec(f"async def main():\n    {IN_ASYNCIO}\n", names)
    asyncio.run(names["main"]())
    assert [saga["state"] for saga in sagas.list()] == ["completed"]


def test_an_input_of_keywords_is_refused_with_the_dict_that_is_meant(saga_lab):
    """The error names ``start_saga`` and shows the dict."""
    wanted = r"start_saga got .* 'city'; .* into a dict, as in \('echoes', \{'city': \.\.\.\}\)"
    with pytest.raises(TypeError, match=wanted):
        start_saga.delay("echoes", city="Oslo")
    assert sagas.list() == []


def test_a_builder_is_refused_with_what_it_lacks(saga_lab):
    """The error names the missing ``.build()``."""
    with pytest.raises(TypeError, match=r"there the workflow is WorkflowBuilder; call \.build\(\)"):
        start_saga.delay(WorkflowBuilder("unbuilt").add_step("a", "echo"), {})


def test_called_like_a_function_in_a_task_it_starts_nothing_either(saga_lab):
    """A user's task without ``.delay`` fails with the same error."""

    @app.task(name="starts.forgetful", shared=False)
    def forgetful():
        start_saga("echoes", ECHO)

    for call in (forgetful.s(), forgetful.starmap([()])):
        with pytest.raises(InvalidInput, match=r"start_saga\.delay"):
            call.apply().get()
    assert sagas.list() == []


def test_the_task_itself_starts_in_every_real_execution(saga_lab):
    """``apply``, a signature and a tracer's call all start a saga."""
    outcome = start_saga.delay("echoes", ECHO).get()
    for call in (start_saga.s("echoes", ECHO).apply, start_saga.s("echoes", ECHO).apply_async):
        assert call().get() == outcome
    assert start_saga.apply(("echoes", ECHO)).get() == outcome
    assert len(sagas.list()) == 4
