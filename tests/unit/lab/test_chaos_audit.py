"""Does the audit of a chaos run find what is lost, doubled or wrong, and nothing else?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiagents.lab.chaos import audit
from multiagents.lab.chaos.audit import BY_FAULTS, BY_ORDERS, Evidence
from multiagents.lab.chaos.ledger import Ledger
from multiagents.lab.chaos.orders import (
    BOXES,
    CUSTOMER,
    RESERVED,
    SHIPPED,
    SHOP,
    SKU,
    STEPS,
    USED,
    Trouble,
    opening,
    order,
)
from multiagents.lab.chaos.plan import ChaosPlan, FaultKind
from multiagents.lab.chaos.recovery import Fault
from multiagents.lab.chaos.report import ChaosReport

SOLD, UNDONE, STUCK = "sold", "undone", "stuck"
"""A saga that completed, one that was compensated, and one whose refund is parked."""
PIECES, CENTS = 2, 3980
Edit = Callable[[sqlite3.Connection], object]


def given(trouble: Trouble = Trouble.NONE) -> dict[str, Any]:
    return {"quantity": PIECES, "cents": CENTS, "trouble": trouble.value}


def saga(state: str, **undos: str) -> dict[str, Any]:
    """What `get` says; ``undos``: the state of each compensation."""
    steps = {
        step: {
            "state": "succeeded",
            "compensation": {"state": undos[step]} if step in undos else None,
        }
        for step in STEPS
    }
    return {"state": state, "needs_attention": "parked" in undos.values(), "steps": steps}


def move(path: Path, saga_id: str, step: str) -> None:
    """Do a step's effect."""
    moves = {
        "reserve": [("stock", SKU, -PIECES), ("stock", RESERVED, PIECES)],
        "charge": [("money", CUSTOMER, -CENTS), ("money", SHOP, CENTS)],
        "pack": [("stock", BOXES, -1), ("stock", USED, 1)],
        "ship": [("stock", RESERVED, -PIECES), ("stock", SHIPPED, PIECES)],
    }
    Ledger(path, saga=saga_id, step=step).move(f"{saga_id}:{step}", *moves[step])


def undo(path: Path, saga_id: str, step: str) -> None:
    Ledger(path, saga=saga_id, step=step).put_back(f"{saga_id}:{step}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The ledger of three sagas in which all went as it should."""
    file = tmp_path / "ledger.sqlite"
    Ledger(file).open(**opening(3))
    for saga_id in (SOLD, UNDONE, STUCK):
        for step in STEPS:
            move(file, saga_id, step)
    for step in reversed(STEPS):
        undo(file, UNDONE, step)
    for step in ("ship", "pack", "reserve"):
        undo(file, STUCK, step)
    return file


def evidence(path: Path) -> Evidence:
    """What the witnesses say of those three."""
    done = dict.fromkeys(STEPS, "succeeded")
    return Evidence(
        orders={SOLD: given(), UNDONE: given(Trouble.STRIKE), STUCK: given(Trouble.REFUND_STUCK)},
        sagas={
            SOLD: saga("completed"),
            UNDONE: saga("compensated", **done),
            STUCK: saga("failed", **{**done, "charge": "parked"}),
        },
        results={SOLD: "SUCCESS", UNDONE: "FAILURE", STUCK: "FAILURE"},
        known=3,
        books=Ledger(path).books(),
        opening=opening(3),
    )


def found(told: Evidence) -> set[tuple[str, str]]:
    """Violations by what and whose."""
    return {(violation.what, violation.saga) for violation in audit.violations(told)}


def edited(path: Path, edit: str, *values: object) -> Evidence:
    """The evidence after somebody has laid hands on the ledger."""
    with sqlite3.connect(path) as db:
        assert db.execute(edit, values).rowcount > 0
    db.close()
    return evidence(path)


def test_a_good_run_has_no_violation(path: Path) -> None:
    """One saga of each end, and a parked one."""
    assert found(evidence(path)) == set()
    assert [audit.outcome(one) for _, _, one in evidence(path).found()] == [
        "completed",
        "compensated",
        "parked",
    ]


# ---- planted in the ledger ----


def test_a_change_that_is_removed_is_found(path: Path) -> None:
    """Its effect is in the balance and nothing accounts for it."""
    told = edited(path, "DELETE FROM changes WHERE key = 'sold:charge'")
    assert found(told) == {("money does not add up", ""), ("records disagree", SOLD)}


def test_a_row_of_the_journal_that_is_removed_is_found(path: Path) -> None:
    """As if an effect had never been done, or never undone."""
    told = edited(path, "DELETE FROM journal WHERE key = 'sold:ship'")
    assert found(told) == {("wrong effect", SOLD), ("records disagree", SOLD)}
    told = edited(path, "DELETE FROM journal WHERE key = 'undone:pack' AND what = 'undone'")
    assert ("wrong effect", UNDONE) in found(told)


def test_an_effect_under_two_keys_is_found(path: Path) -> None:
    """What no key can absorb: each attempt under a key of its own."""
    Ledger(path, saga=SOLD, step="charge").move(
        "sold:charge:2", ("money", CUSTOMER, -CENTS), ("money", SHOP, CENTS)
    )
    assert found(evidence(path)) == {
        ("effect twice", SOLD),
        ("wrong effect", SOLD),
        ("what was paid does not add up", ""),
    }


def test_an_effect_that_is_done_again_under_its_key_is_found(path: Path) -> None:
    """A shop that forgets its keys."""
    told = edited(
        path,
        "INSERT INTO journal (what, key, saga, step) VALUES ('done', 'sold:pack', ?, 'pack')",
        SOLD,
    )
    assert {("effect twice", SOLD), ("records disagree", SOLD)} <= found(told)


def test_money_that_vanishes_is_found(path: Path) -> None:
    """One cent."""
    told = edited(path, "UPDATE money SET cents = cents - 1 WHERE account = ?", SHOP)
    assert found(told) == {("money not conserved", ""), ("money does not add up", "")}


def test_stock_that_comes_from_nowhere_is_found(path: Path) -> None:
    """One piece."""
    told = edited(path, "UPDATE stock SET quantity = quantity + 1 WHERE sku = ?", SKU)
    assert found(told) == {("stock not conserved", ""), ("stock does not add up", "")}


def test_an_undo_that_was_not_done_is_found(path: Path) -> None:
    """The saga says compensated, and the customer has paid."""
    told = evidence(path)
    sagas = {**told.sagas, STUCK: saga("compensated", **dict.fromkeys(STEPS, "succeeded"))}
    assert ("wrong effect", STUCK) in found(replace(told, sagas=sagas))


def test_an_effect_without_a_saga_is_found(path: Path) -> None:
    """Nobody ordered that."""
    move(path, "stranger", "reserve")
    assert ("effect of a stranger", "stranger") in found(evidence(path))


# ---- planted in what the engine says ----


def changed(path: Path, saga_id: str, told: dict[str, Any] | None) -> Evidence:
    before = evidence(path)
    return replace(before, sagas={**before.sagas, saga_id: told})


def test_a_saga_that_nobody_knows_is_found(path: Path) -> None:
    """Its start returned."""
    assert ("saga lost", SOLD) in found(changed(path, SOLD, None))


def test_a_saga_too_many_is_found(path: Path) -> None:
    """A start that was repeated under its key made two."""
    assert found(replace(evidence(path), known=4)) == {("sagas do not add up", "")}


@pytest.mark.parametrize("state", ["pending", "running", "paused", "compensating"])
def test_a_saga_that_stands_still_is_found(path: Path, state: str) -> None:
    """At no end, and nothing of it is parked."""
    assert ("saga stuck", SOLD) in found(changed(path, SOLD, saga(state)))


def test_a_running_saga_with_a_parked_step_waits_for_a_person(path: Path) -> None:
    """That is no violation."""
    told = saga("running")
    told["needs_attention"], told["steps"]["ship"]["state"] = True, "parked"
    assert ("saga stuck", SOLD) not in found(changed(path, SOLD, told))


def test_a_saga_that_ends_as_it_cannot_is_found(path: Path) -> None:
    """Paid though the carrier struck; failed without a reason; cancelled by nobody."""
    for saga_id, told in (
        (UNDONE, saga("completed")),
        (SOLD, saga("failed")),
        (SOLD, saga("cancelled")),
    ):
        assert ("wrong end", saga_id) in found(changed(path, saga_id, told))


@pytest.mark.parametrize("status", ["PENDING", "FAILURE"])
def test_an_outcome_that_is_not_told_is_found(path: Path, status: str) -> None:
    """Somebody would wait for ever, or hear the wrong thing."""
    told = evidence(path)
    results = {**told.results, SOLD: status}
    assert found(replace(told, results=results)) == {("outcome not delivered", SOLD)}


# ---- what keys absorb ----


def test_duplicates_are_counted_by_what_brought_them_about(path: Path) -> None:
    """An order that always fails after its effect repeats it; anything else is a fault's doing."""
    move(path, UNDONE, "ship")  # its carrier strikes, but its effect was undone: late
    move(path, STUCK, "charge")
    move(path, SOLD, "charge")
    undo(path, UNDONE, "pack")
    told = evidence(path)
    assert audit.absorbed(told) == {
        "done again": {BY_ORDERS: 1, BY_FAULTS: 1},
        "late": {BY_ORDERS: 0, BY_FAULTS: 1},
        "undone again": {BY_ORDERS: 0, BY_FAULTS: 1},
    }
    assert found(told) == set()


# ---- the report ----


def report(plan: ChaosPlan, **more: Any) -> ChaosReport:
    """A report of a clean run of this plan."""
    faults = [Fault(kind, 0) for kind, count in plan.asked.items() for _ in range(count)]
    values: dict[str, Any] = {
        "plan": plan,
        "started": plan.sagas,
        "repeated_starts": 0,
        "states": {},
        "undone_by_faults": 0,
        "injected": faults,
        "recovery": {},
        "unexplained_losses": 0,
        "absorbed": {},
        "ended_by_themselves": (),
        "seconds": 1.0,
        "found": (),
        **more,
    }
    return ChaosReport(**values)


def test_a_run_that_did_less_than_asked_is_no_proof() -> None:
    """Faults that were not done, sagas that were not started, workers that nobody killed."""
    plan = ChaosPlan(kills=5)
    assert report(plan).ok
    fewer = [fault for fault in report(plan).injected if fault.kind is not FaultKind.CUT]
    for bad in (
        {"injected": fewer},
        {"started": plan.sagas - 1},
        {"ended_by_themselves": ["chaos-1: the worker ended with exit code 1"]},
    ):
        assert not report(plan, **bad).ok


def test_orders_are_the_same_for_the_same_seed() -> None:
    """And differ from order to order."""
    assert [order(7, number, 0.1) for number in range(50)] == [
        order(7, number, 0.1) for number in range(50)
    ]
    assert {order(7, number, 0.1)["trouble"] for number in range(500)} == {
        trouble.value for trouble in Trouble
    }
