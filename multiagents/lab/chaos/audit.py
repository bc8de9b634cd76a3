"""Was anything lost, or done twice?

Three witnesses are compared: what was ordered, what the engine says of each saga, and what the
shop's ledger holds.  A check that has nothing to say returns nothing; no check repairs anything.
No I/O.
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
"""What Celery's result of a saga says, by the saga's state."""
ENDS = frozenset(state.value for state in ENDED)


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be.  ``saga``: whose; "" where it is the whole shop's."""

    what: str
    saga: str
    detail: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the witnesses say, after everything has come to rest."""

    orders: Mapping[str, Mapping[str, Any]]
    """Saga id -> its input, of every start that returned."""
    sagas: Mapping[str, Mapping[str, Any] | None]
    """Saga id -> what `get` says; None: it is not known."""
    results: Mapping[str, str]
    """Saga id -> the status of its Celery result."""
    known: int
    """How many sagas the server has."""
    books: Books
    opening: Mapping[str, Mapping[str, int]]
    """What the shop began with."""

    def found(self) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """The sagas that are known: id, order, and what `get` says."""
        for saga_id, given in self.orders.items():
            saga = self.sagas.get(saga_id)
            if saga is not None:
                yield saga_id, given, saga


def violations(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong; [] is right."""
    return [violation for check in CHECKS for violation in check(evidence)]


def is_parked(saga: Mapping[str, Any]) -> bool:
    """Whether a saga waits for a person: a step or an undo of it is a dead letter."""
    states = {step["state"] for step in saga["steps"].values()}
    undos = {undo["state"] for step in saga["steps"].values() if (undo := step["compensation"])}
    return bool(saga["needs_attention"]) and (
        StepState.PARKED.value in states or UndoState.PARKED.value in undos
    )


def outcome(saga: Mapping[str, Any]) -> str:
    """Under which word the report counts a saga."""
    return "parked" if is_parked(saga) else str(saga["state"])


def undone_by_faults(evidence: Evidence) -> int:
    """How many sagas did not complete though their orders let them."""
    return sum(
        Trouble(given["trouble"]) in MAY_COMPLETE and saga["state"] != SagaState.COMPLETED
        for _, given, saga in evidence.found()
    )


def absorbed(evidence: Evidence) -> dict[str, dict[str, int]]:
    """How often keys absorbed a duplicate, by what it was and what had brought it about."""
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
    """Every start that returned is known, and no other saga is."""
    for saga_id in evidence.orders:
        if evidence.sagas.get(saga_id) is None:
            yield Violation("saga lost", saga_id, "its start returned, and nobody knows it")
    if evidence.known != len(evidence.orders):
        detail = f"{evidence.known} on the server, {len(evidence.orders)} started"
        yield Violation("sagas do not add up", "", detail)


def _unsettled(evidence: Evidence) -> Iterator[Violation]:
    """Every saga is at an end or parked."""
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
    """An order that cannot be paid is not completed; what failed says what needs attention."""
    for saga_id, given, saga in evidence.found():
        trouble = Trouble(given["trouble"])
        if saga["state"] == SagaState.COMPLETED and trouble not in MAY_COMPLETE:
            yield Violation("wrong end", saga_id, f"completed, though {trouble.value}")
        if saga["state"] == SagaState.FAILED and not is_parked(saga):
            yield Violation("wrong end", saga_id, "failed, and nothing of it is parked")
        if saga["state"] == SagaState.CANCELLED:
            yield Violation("wrong end", saga_id, "cancelled, which nobody asked for")


def _not_delivered(evidence: Evidence) -> Iterator[Violation]:
    """Who waits for an ended saga gets its outcome."""
    for saga_id, _, saga in evidence.found():
        expected = DELIVERED.get(saga["state"])
        found = evidence.results.get(saga_id, "PENDING")
        if expected not in (None, found):
            detail = f"{saga['state']}, but its result is {found}"
            yield Violation("outcome not delivered", saga_id, detail)


# ---- effects ----


def _effects(evidence: Evidence) -> Iterator[Violation]:
    """Each step's effect is in place once or not at all, as the saga's end says."""
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
                detail = f"{saga['state']}, and {step} is in place {in_place} ×"
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
    """Nothing is done for a saga that nobody started."""
    for saga_id in sorted({row.saga for row in evidence.books.journal} - evidence.orders.keys()):
        yield Violation("effect of a stranger", saga_id, "no start of this saga returned")


# ---- books ----


def _books(evidence: Evidence) -> Iterator[Violation]:
    """Stock and money are conserved, and are what the changes on record come to."""
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
            detail = f"changes come to {expected[where]}, found {books.balance[where]}"
            yield Violation(f"{where} does not add up", "", detail)


def _records(evidence: Evidence) -> Iterator[Violation]:
    """The journal and the changes tell the same."""
    counts = {what: Counter[str]() for what in ("done", "undone")}
    for row in evidence.books.journal:
        if row.what in counts:
            counts[row.what][row.key] += 1
    changed = {key: undone for key, moves, undone in evidence.books.changes if moves}
    for key in sorted(changed.keys() | counts["done"].keys() | counts["undone"].keys()):
        told = (counts["done"][key], counts["undone"][key])
        found = (int(key in changed), int(changed.get(key, False)))
        if told != found:
            detail = f"{key}: done and undone {told} by the journal, {found} by the changes"
            yield Violation("records disagree", key.partition(":")[0], detail)


def _sales(evidence: Evidence) -> Iterator[Violation]:
    """Completed sagas account for what was shipped and paid; parked ones may."""
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
            detail = f"{amount}; completed sagas come to {surely[what]}, parked to {perhaps[what]}"
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
