"""Do canvases around sagas behave in eager mode as with a worker?"""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group

from multiagents import (
    NonRetryableError,
    SagaFailed,
    WorkflowBuilder,
    app,
    sagas,
    start_saga,
    worker,
)
from multiagents import task as plain

CALLED: list[Any] = []


@worker("ec.pay")
def pay(context: Any) -> dict[str, Any]:
    if context.get("poor"):
        raise NonRetryableError("no money", clean=True)
    if context.get("gives_up"):
        sagas.cancel(context.transaction_id)
    return {"paid": context.get("cents", 1)}


@app.task(name="ec.after", shared=False)
def after(result: Any) -> Any:
    CALLED.append(result)
    return {"after": result}


@app.task(name="ec.sorry", shared=False)
def sorry(request: Any, error: Any, traceback: Any) -> None:
    CALLED.append((request.task, str(error)))


@app.task(name="ec.total", shared=False)
def total(results: list[Any]) -> int:
    return sum(result["paid"] for result in results)


@app.task(name="ec.tenant", shared=False, bind=True)
def tenant(self: Any) -> dict[str, Any]:
    return {"headers": self.request.headers}


order = WorkflowBuilder("ec_order").add_step("pay", "ec.pay").build().register()
POOR = ("ec_order", {"poor": 1})


@pytest.fixture(autouse=True)
def nothing_called(saga_lab):
    CALLED.clear()


def paid(cents: int) -> Any:
    return start_saga.s("ec_order", {"cents": cents})


def test_links_are_called_with_the_outcome():
    """`link=` and a signature's own links are called in order."""
    result = start_saga.apply_async(("ec_order", {}), link=[after.s(), after.s()])
    assert (result.get(), CALLED) == ({"paid": 1}, [{"paid": 1}] * 2)


def test_errbacks_are_called_with_the_error():
    """A failure calls no links."""
    result = start_saga.apply_async(POOR, link=after.s(), link_error=sorry.s())
    assert len(CALLED) == 1
    assert CALLED[0][0] == "multiagents.start_saga"
    assert "no money" in CALLED[0][1]
    with pytest.raises(SagaFailed, match="no money"):
        result.get()


def test_a_chain_goes_on_with_the_outcome():
    """The result before a saga is its input, as with workers."""
    result = chain(paid(7), after.s()).apply_async()
    assert result.get() == {"after": {"paid": 7}}
    before = chain(after.s({"cents": 3}), start_saga.s("ec_order")).apply_async()
    assert before.get() == {"paid": 1}


def test_a_chain_with_a_saga_that_fails_fails():
    """The chain raises and runs nothing after the saga."""
    with pytest.raises(SagaFailed, match="no money"):
        chain(start_saga.s(*POOR), after.s()).apply_async().get()
    assert CALLED == []


def test_groups_and_chords_have_the_outcomes():
    """Each saga's outcome is there, in order."""
    assert group(map(paid, (1, 2))).apply_async().get() == [{"paid": 1}, {"paid": 2}]
    assert chord(map(paid, (1, 2)), total.s()).apply_async().get() == 3


@pytest.mark.parametrize("canvas", [group, lambda sagas: chord(sagas, total.s())])
def test_a_group_or_chord_with_a_saga_that_fails_fails(canvas):
    """The error is that saga's."""
    with pytest.raises(SagaFailed, match="no money"):
        canvas([paid(1), start_saga.s(*POOR)]).apply_async().get()


def test_a_saga_that_is_cancelled_is_revoked_and_calls_its_errbacks():
    """The same happens with a worker."""
    two = WorkflowBuilder("ec_two").add_step("pay", "ec.pay").add_step("more", "ec.pay").build()
    result = start_saga.apply_async((two, {"gives_up": 1}), link_error=sorry.s())
    assert (result.state, len(CALLED)) == ("REVOKED", 1)


def test_errors_propagate_where_celery_is_told_so():
    """`task_eager_propagates` holds for sagas as for tasks."""
    app.conf.task_eager_propagates = True
    try:
        with pytest.raises(SagaFailed, match="no money"):
            start_saga.delay(*POOR)
    finally:
        app.conf.task_eager_propagates = False


def test_the_headers_of_a_start_reach_its_plain_tasks():
    """Eager plain tasks get them as a message would carry them."""
    flow = WorkflowBuilder("ec_tenant").add_step("a", plain("ec.tenant", args=[])).build()
    result = start_saga.apply_async((flow, {}), headers={"tenant": "acme"})
    assert result.get() == {"headers": {"tenant": "acme"}}
