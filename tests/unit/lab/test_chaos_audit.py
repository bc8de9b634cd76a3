"""Does a chaos run's audit find each lost, doubled or wrong effect, and nothing else?"""

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
    """A saga as `get` gives it; ``undos``: the state of each compensation."""
    steps = {
        step: {
            "state": "succeeded",
            "compensation": {"state": undos[step]} if step in undos else None,
        }
        for step in STEPS
    }
    return {"state": state, "needs_attention": "parked" in undos.values(), "steps": steps}


def move(path: Path, saga_id: str, step: str) -> None:
    """Apply a step's effect."""
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
    """The correct ledger of three sagas."""
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
    """All records of those three sagas."""
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
    """Violations by kind and subject."""
    return {(violation.what, violation.saga) for violation in audit.violations(told)}


def edited(path: Path, edit: str, *values: object) -> Evidence:
    """The evidence after a manual change to the ledger."""
    with sqlite3.connect(path) as db:
        assert db.execute(edit, values).rowcount > 0
    db.close()
    return evidence(path)


def test_a_good_run_has_no_violation(path: Path) -> None:
    """One saga of each outcome, and a parked one, pass the audit."""
    assert found(evidence(path)) == set()
    assert [audit.outcome(one) for _, _, one in evidence(path).found()] == [
        "completed",
        "compensated",
        "parked",
    ]


# ---- planted in the ledger ----


def test_a_change_that_is_removed_is_found(path: Path) -> None:
    """The balance contains an effect without a record."""
    told = edited(path, "DELETE FROM changes WHERE key = 'sold:charge'")
    assert found(told) == {("money does not add up", ""), ("records disagree", SOLD)}


def test_a_row_of_the_journal_that_is_removed_is_found(path: Path) -> None:
    """The journal then lacks an effect or its undo."""
    told = edited(path, "DELETE FROM journal WHERE key = 'sold:ship'")
    assert found(told) == {("wrong effect", SOLD), ("records disagree", SOLD)}
    told = edited(path, "DELETE FROM journal WHERE key = 'undone:pack' AND what = 'undone'")
    assert ("wrong effect", UNDONE) in found(told)


def test_an_effect_under_two_keys_is_found(path: Path) -> None:
    """Two attempts with two keys do the effect twice."""
    Ledger(path, saga=SOLD, step="charge").move(
        "sold:charge:2", ("money", CUSTOMER, -CENTS), ("money", SHOP, CENTS)
    )
    assert found(evidence(path)) == {
        ("effect twice", SOLD),
        ("wrong effect", SOLD),
        ("what was paid does not add up", ""),
    }


def test_an_effect_that_is_done_again_under_its_key_is_found(path: Path) -> None:
    """The audit finds a shop that forgets its keys."""
    told = edited(
        path,
        "INSERT INTO journal (what, key, saga, step) VALUES ('done', 'sold:pack', ?, 'pack')",
        SOLD,
    )
    assert {("effect twice", SOLD), ("records disagree", SOLD)} <= found(told)


def test_money_that_vanishes_is_found(path: Path) -> None:
    """One missing cent is a violation."""
    told = edited(path, "UPDATE money SET cents = cents - 1 WHERE account = ?", SHOP)
    assert found(told) == {("money not conserved", ""), ("money does not add up", "")}


def test_stock_that_comes_from_nowhere_is_found(path: Path) -> None:
    """One additional piece is a violation."""
    told = edited(path, "UPDATE stock SET quantity = quantity + 1 WHERE sku = ?", SKU)
    assert found(told) == {("stock not conserved", ""), ("stock does not add up", "")}


def test_an_undo_that_was_not_done_is_found(path: Path) -> None:
    """The saga is compensated, but the customer's payment stands."""
    told = evidence(path)
    sagas = {**told.sagas, STUCK: saga("compensated", **dict.fromkeys(STEPS, "succeeded"))}
    assert ("wrong effect", STUCK) in found(replace(told, sagas=sagas))


def test_an_effect_without_a_saga_is_found(path: Path) -> None:
    """An effect that no saga ordered is a violation."""
    move(path, "stranger", "reserve")
    assert ("effect of a stranger", "stranger") in found(evidence(path))


# ---- planted in what the engine says ----


def changed(path: Path, saga_id: str, told: dict[str, Any] | None) -> Evidence:
    before = evidence(path)
    return replace(before, sagas={**before.sagas, saga_id: told})


def test_a_saga_that_nobody_knows_is_found(path: Path) -> None:
    """A start returned, but its saga does not exist."""
    assert ("saga lost", SOLD) in found(changed(path, SOLD, None))


def test_a_saga_too_many_is_found(path: Path) -> None:
    """A repeated start under one key made two sagas."""
    assert found(replace(evidence(path), known=4)) == {("sagas do not add up", "")}


@pytest.mark.parametrize("state", ["pending", "running", "paused", "compensating"])
def test_a_saga_that_stands_still_is_found(path: Path, state: str) -> None:
    """The saga has not ended and has no dead letter."""
    assert ("saga stuck", SOLD) in found(changed(path, SOLD, saga(state)))


def test_a_running_saga_with_a_parked_step_waits_for_a_person(path: Path) -> None:
    """A saga that waits for an operator is no violation."""
    told = saga("running")
    told["needs_attention"], told["steps"]["ship"]["state"] = True, "parked"
    assert ("saga stuck", SOLD) not in found(changed(path, SOLD, told))


def test_a_saga_that_ends_as_it_cannot_is_found(path: Path) -> None:
    """The audit finds an outcome that contradicts the ledger."""
    for saga_id, told in (
        (UNDONE, saga("completed")),
        (SOLD, saga("failed")),
        (SOLD, saga("cancelled")),
    ):
        assert ("wrong end", saga_id) in found(changed(path, saga_id, told))


@pytest.mark.parametrize("status", ["PENDING", "FAILURE"])
def test_an_outcome_that_is_not_told_is_found(path: Path, status: str) -> None:
    """A waiter without the outcome, or with a wrong one, is a violation."""
    told = evidence(path)
    results = {**told.results, SOLD: status}
    assert found(replace(told, results=results)) == {("outcome not delivered", SOLD)}


# ---- what keys absorb ----


def test_duplicates_are_counted_by_what_brought_them_about(path: Path) -> None:
    """An order that always fails after its effect repeats it; faults cause all other duplicates."""
    move(path, UNDONE, "ship")  # its carrier fails, but its effect was undone: a late one
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
    """A run with missing faults, sagas or kills fails."""
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
    """Different orders of one seed differ."""
    assert [order(7, number, 0.1) for number in range(50)] == [
        order(7, number, 0.1) for number in range(50)
    ]
    assert {order(7, number, 0.1)["trouble"] for number in range(500)} == {
        trouble.value for trouble in Trouble
    }
