"""Was anything lost, or done twice?

The audit compares three records: the orders, the engine's state of each saga, and the shop's
ledger.  A check yields only violations, and repairs nothing.  No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from multiagents.core.states import ENDED, SagaState, StepState, UndoState
from multiagents.lab.chaos.ledger import ABSORBED, Books, Row
from multiagents.lab.chaos.orders import MAY_COMPLETE, REPEATS, SHIPPED, SHOP, STEPS, Trouble

BY_ORDERS, BY_FAULTS = "by orders", "by faults"
DELIVERED = {"completed": "SUCCESS", "compensated": "FAILURE", "failed": "FAILURE"}
"""The state of a saga -> the status of its Celery result."""
ENDS = frozenset(state.value for state in ENDED)


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule.  ``saga``: the saga's id; "" if it concerns the whole shop."""

    what: str
    saga: str
    detail: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All records, after every saga has come to rest."""

    orders: Mapping[str, Mapping[str, Any]]
    """Saga id -> its input, for each start that returned."""
    sagas: Mapping[str, Mapping[str, Any] | None]
    """Saga id -> the answer of `get`; None: the engine has no such saga."""
    results: Mapping[str, str]
    """Saga id -> the status of its Celery result."""
    known: int
    """How many sagas the server has."""
    books: Books
    opening: Mapping[str, Mapping[str, int]]
    """The shop's stock and money at the beginning."""

    def found(self) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """The sagas that the engine has: id, order, and the answer of `get`."""
        for saga_id, given in self.orders.items():
            saga = self.sagas.get(saga_id)
            if saga is not None:
                yield saga_id, given, saga


def violations(evidence: Evidence) -> list[Violation]:
    """All violations; [] if every rule holds."""
    return [violation for check in CHECKS for violation in check(evidence)]


def is_parked(saga: Mapping[str, Any]) -> bool:
    """Whether a saga waits for an operator: one of its steps or undos is a dead letter."""
    states = {step["state"] for step in saga["steps"].values()}
    undos = {undo["state"] for step in saga["steps"].values() if (undo := step["compensation"])}
    return bool(saga["needs_attention"]) and (
        StepState.PARKED.value in states or UndoState.PARKED.value in undos
    )


def outcome(saga: Mapping[str, Any]) -> str:
    """The word under which the report counts a saga."""
    return "parked" if is_parked(saga) else str(saga["state"])


def undone_by_faults(evidence: Evidence) -> int:
    """The number of sagas that could have completed by their orders, and did not."""
    return sum(
        Trouble(given["trouble"]) in MAY_COMPLETE and saga["state"] != SagaState.COMPLETED
        for _, given, saga in evidence.found()
    )


def absorbed(evidence: Evidence) -> dict[str, dict[str, int]]:
    """How often keys absorbed a duplicate, by its kind and its cause."""
    counts = {word: {BY_ORDERS: 0, BY_FAULTS: 0} for word in ABSORBED}
    for row in evidence.books.journal:
        if row.what in counts:
            counts[row.what][_cause(row, evidence)] += 1
    return counts


def _cause(row: Row, evidence: Evidence) -> str:
    trouble = Trouble(evidence.orders.get(row.saga, {}).get("trouble", Trouble.NONE))
    return BY_ORDERS if (trouble, row.step, row.what) in REPEATS else BY_FAULTS


# ---- sagas ----


def _lost(evidence: Evidence) -> Iterator[Violation]:
    """The server has a saga for each start that returned, and no other saga."""
    for saga_id in evidence.orders:
        if evidence.sagas.get(saga_id) is None:
            yield Violation("saga lost", saga_id, "its start returned, and no server has it")
    if evidence.known != len(evidence.orders):
        detail = f"{evidence.known} on the server, {len(evidence.orders)} started"
        yield Violation("sagas do not add up", "", detail)


def _unsettled(evidence: Evidence) -> Iterator[Violation]:
    """Every saga has ended or is parked."""
    for saga_id, _, saga in evidence.found():
        if saga["state"] not in ENDS and not is_parked(saga):
            steps = {name: step["state"] for name, step in saga["steps"].items()}
            undos = {
                name: step["compensation"]["state"]
                for name, step in saga["steps"].items()
                if step["compensation"]
            }
            yield Violation("saga stuck", saga_id, f"{saga['state']}; steps {steps}, undos {undos}")


def _wrong_end(evidence: Evidence) -> Iterator[Violation]:
    """An order that cannot be paid does not complete; a failed saga has a dead letter."""
    for saga_id, given, saga in evidence.found():
        trouble = Trouble(given["trouble"])
        if saga["state"] == SagaState.COMPLETED and trouble not in MAY_COMPLETE:
            yield Violation("wrong end", saga_id, f"completed, although {trouble.value}")
        if saga["state"] == SagaState.FAILED and not is_parked(saga):
            yield Violation("wrong end", saga_id, "failed, but none of its steps is parked")
        if saga["state"] == SagaState.CANCELLED:
            yield Violation("wrong end", saga_id, "cancelled, without a request")


def _not_delivered(evidence: Evidence) -> Iterator[Violation]:
    """A caller that waits for an ended saga gets its outcome."""
    for saga_id, _, saga in evidence.found():
        expected = DELIVERED.get(saga["state"])
        found = evidence.results.get(saga_id, "PENDING")
        if expected not in (None, found):
            detail = f"{saga['state']}, but its result is {found}"
            yield Violation("outcome not delivered", saga_id, detail)


# ---- effects ----


def _effects(evidence: Evidence) -> Iterator[Violation]:
    """Each step took effect once or not at all, as the saga's state requires."""
    done: Counter[tuple[str, str]] = Counter()
    undone: Counter[tuple[str, str]] = Counter()
    keys: dict[tuple[str, str], set[str]] = {}
    for row in evidence.books.journal:
        place = (row.saga, row.step)
        done[place] += row.what == "done"
        undone[place] += row.what == "undone"
        keys.setdefault(place, set()).add(row.key)
    for saga_id, _, saga in evidence.found():
        for step in STEPS:
            place = (saga_id, step)
            if done[place] > 1 or undone[place] > 1 or len(keys.get(place, ())) > 1:
                detail = f"{step}: done {done[place]} ×, undone {undone[place]} ×"
                under = f"under {sorted(keys.get(place, ()))}"
                yield Violation("effect twice", saga_id, f"{detail}, {under}")
            in_place = done[place] - undone[place]
            if in_place not in _allowed(saga, step):
                detail = f"{saga['state']}, but {step} is in place {in_place} ×"
                yield Violation("wrong effect", saga_id, detail)


def _allowed(saga: Mapping[str, Any], step: str) -> tuple[int, ...]:
    """How often a step's effect may be in place."""
    if saga["state"] == SagaState.COMPLETED:
        return (1,)
    if saga["state"] in (SagaState.COMPENSATED, SagaState.CANCELLED):
        return (0,)
    run = saga["steps"][step]
    undo = run["compensation"]
    undone = undo is not None and undo["state"] == UndoState.SUCCEEDED
    never_began = run["state"] == StepState.WAITING
    return (0,) if undone or never_began else (0, 1)


def _strangers(evidence: Evidence) -> Iterator[Violation]:
    """No effect belongs to a saga that was never started."""
    for saga_id in sorted({row.saga for row in evidence.books.journal} - evidence.orders.keys()):
        yield Violation("effect of a stranger", saga_id, "no start of this saga returned")


# ---- books ----


def _books(evidence: Evidence) -> Iterator[Violation]:
    """Stock and money are conserved, and equal the sum of the recorded changes."""
    books = evidence.books
    expected = {name: dict(values) for name, values in evidence.opening.items()}
    for _, moves, is_undone in books.changes:
        for where, what, by in moves:
            expected[where][what] += 0 if is_undone else by
    for where, values in evidence.opening.items():
        before, after = sum(values.values()), sum(books.balance[where].values())
        if before != after:
            yield Violation(f"{where} not conserved", "", f"{before} at first, {after} now")
        if expected[where] != books.balance[where]:
            detail = f"by the changes {expected[where]}, in the books {books.balance[where]}"
            yield Violation(f"{where} does not add up", "", detail)


def _records(evidence: Evidence) -> Iterator[Violation]:
    """The journal and the changes agree."""
    counts = {what: Counter[str]() for what in ("done", "undone")}
    for row in evidence.books.journal:
        if row.what in counts:
            counts[row.what][row.key] += 1
    changed = {key: undone for key, moves, undone in evidence.books.changes if moves}
    for key in sorted(changed.keys() | counts["done"].keys() | counts["undone"].keys()):
        journal = (counts["done"][key], counts["undone"][key])
        changes = (int(key in changed), int(changed.get(key, False)))
        if journal != changes:
            detail = f"{key}: (done, undone) is {journal} in the journal, {changes} in the changes"
            yield Violation("records disagree", key.partition(":")[0], detail)


def _sales(evidence: Evidence) -> Iterator[Violation]:
    """Completed sagas account for the shipped and paid totals; parked ones may add to them."""
    balance = evidence.books.balance
    found = {"shipped": balance["stock"][SHIPPED], "paid": balance["money"][SHOP]}
    surely, perhaps = Counter[str](), Counter[str]()
    for _, given, saga in evidence.found():
        sold = {"shipped": given["quantity"], "paid": given["cents"]}
        if saga["state"] == SagaState.COMPLETED:
            surely.update(sold)
        elif saga["state"] not in (SagaState.COMPENSATED, SagaState.CANCELLED):
            perhaps.update(sold)
    for what, amount in found.items():
        if not surely[what] <= amount <= surely[what] + perhaps[what]:
            detail = f"{amount}; completed sagas: {surely[what]}, parked ones: {perhaps[what]}"
            yield Violation(f"what was {what} does not add up", "", detail)


CHECKS: tuple[Callable[[Evidence], Iterator[Violation]], ...] = (
    _lost,
    _unsettled,
    _wrong_end,
    _not_delivered,
    _effects,
    _strangers,
    _books,
    _records,
    _sales,
)
