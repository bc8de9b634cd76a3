"""What is known about one run of a workflow?

Frozen values that only `decide` makes new versions of.  The codec at the end is the stored form:
one compact JSON row a step, trailing defaults left out, so that a commit writes only the steps
that changed (E15).  No Redis, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from multiagents.core.entries import Failure
from multiagents.core.policies import RetryPolicy
from multiagents.core.states import Kind, SagaState, StepState, UndoState


@dataclass(frozen=True, slots=True)
class Work:
    """The attempts at one thing, forward or undo.  Times are Unix milliseconds, 0 = not yet."""

    attempt: int = 0
    """The number of the last attempt dispatched, 1-based; never reused."""
    tries: int = 0
    """Failures since the work began or was last retried by a person."""
    nonce: str = ""
    """Of the last claim; reports must present it."""
    worker: str = ""
    started_at: int = 0
    ended_at: int = 0
    retry_at: int = 0
    error: Failure | None = None
    retry: RetryPolicy | None = None
    """What the worker that claimed it wishes, for steps whose definition sets no policy."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """One step of one saga."""

    state: StepState = StepState.WAITING
    work: Work = Work()
    order: int = 0
    """Position in the order of completion, 1-based; undo runs backwards along it."""
    unknown: bool = False
    """Some started attempt may have left an effect that no success reported (E7)."""
    unchosen: bool = False
    """Skipped because all it waited for was skipped, not by its own condition."""
    lost: tuple[tuple[str, int, str], ...] = ()
    """Claims whose outcome was never reported: ``(kind, attempt, nonce)``; they may come late."""
    undo_state: UndoState = UndoState.NONE
    undo: Work = Work()
    generation: int = 0
    """How often an undo had to begin afresh because an effect came to light after it."""
    again: bool = False
    """An effect came to light while the present undo was under way."""
    done: bool = False
    """An attempt given up for lost has succeeded after all: undone whatever the others did."""

    def of(self, kind: Kind) -> Work:
        """The forward or the undo work."""
        return self.work if kind is Kind.RUN else self.undo


@dataclass(frozen=True, slots=True)
class Saga:
    """One run of a workflow."""

    id: str
    workflow: str
    version: str
    """Content hash of the definition that this saga is pinned to."""
    state: SagaState = SagaState.PENDING
    created_at: int = 0
    updated_at: int = 0
    ended_at: int = 0
    open_steps: int = 0
    """Steps that have neither succeeded nor been skipped."""
    orders: int = 0
    """How many places in the order of completion are taken."""
    cancelled: bool = False
    rolled_back: bool = False
    terminated: bool = False
    delivered: bool = False
    """The outcome has been decided once; later ends are not delivered again (rule 14)."""
    halting: str = ""
    """``cancel`` or ``deadline``: waits to learn whether the pivot was claimed in time."""
    error: Failure | None = None
    error_step: str = ""
    attention: tuple[str, ...] = ()
    """Why a person should look, oldest first."""
    steps: Mapping[str, StepRun] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What conditions read: ``{"input": …, "results": {STEP: …}}``; empty without conditions.
    Not part of the state: it lies beside the saga and never changes once written."""


def new_saga(
    saga_id: str, *, workflow: str, version: str, steps: tuple[str, ...], now_ms: int
) -> Saga:
    """A saga before its first decision."""
    return Saga(
        id=saga_id,
        workflow=workflow,
        version=version,
        created_at=now_ms,
        updated_at=now_ms,
        open_steps=len(steps),
        steps=dict.fromkeys(steps, StepRun()),
    )


_WORK = tuple(spec.name for spec in fields(Work))
_RUN = tuple(spec.name for spec in fields(StepRun))
_HEAD = tuple(spec.name for spec in fields(Saga) if spec.name not in {"id", "steps", "values"})
_DEFAULT_WORK, _DEFAULT_RUN = Work(), StepRun()
_DEFAULT_HEAD = Saga("", "", "")


def encode_step(run: StepRun) -> str:
    """The row that `decode_step` takes back."""
    return _dump(_row(run, _RUN, _DEFAULT_RUN))


def decode_step(row: list[Any]) -> StepRun:
    """A step from its parsed row."""
    if not row:
        return _DEFAULT_RUN
    values = dict(zip(_RUN, row, strict=False))
    values["state"] = StepState(values["state"])
    for name in ("work", "undo"):
        if name in values:
            values[name] = _decode_work(values[name])
    if "lost" in values:
        values["lost"] = tuple((kind, attempt, nonce) for kind, attempt, nonce in values["lost"])
    if "undo_state" in values:
        values["undo_state"] = UndoState(values["undo_state"])
    return StepRun(**values)


def encode_head(saga: Saga) -> str:
    """Everything of a saga but its id, steps and values."""
    return _dump(_row(saga, _HEAD, _DEFAULT_HEAD))


def decode_saga(saga_id: str, head: list[Any], steps: Mapping[str, list[Any]]) -> Saga:
    """A saga from its parsed head and step rows (in definition order)."""
    values = dict(zip(_HEAD, head, strict=False))
    values["state"] = SagaState(values["state"])
    values["error"] = _decode_failure(values.get("error"))
    values["attention"] = tuple(values.get("attention", ()))
    return Saga(id=saga_id, steps={name: decode_step(row) for name, row in steps.items()}, **values)


def _row(value: Any, names: tuple[str, ...], default: Any) -> list[Any]:
    row = [getattr(value, name) for name in names]
    while row and row[-1] == getattr(default, names[len(row) - 1]):
        row.pop()
    return [_plain(item) for item in row]


def _plain(value: Any) -> Any:
    if isinstance(value, Work):
        return _row(value, _WORK, _DEFAULT_WORK)
    if isinstance(value, Failure):
        return [value.type, value.message]
    if isinstance(value, RetryPolicy):
        return value.to_row()
    return value


def _decode_work(row: list[Any]) -> Work:
    if not row:
        return _DEFAULT_WORK
    values = dict(zip(_WORK, row, strict=False))
    if values.get("error") is not None:
        values["error"] = _decode_failure(values["error"])
    if values.get("retry") is not None:
        values["retry"] = RetryPolicy.from_row(values["retry"])
    return Work(**values)


def _decode_failure(row: list[str] | None) -> Failure | None:
    return None if row is None else Failure(*row)


def _dump(row: list[Any]) -> str:
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False)
