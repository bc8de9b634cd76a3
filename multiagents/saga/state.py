"""What is the state of one run of a workflow?

The values are frozen, and only `decide` makes new versions of them.  The codec at the end gives the
stored form: one compact JSON row for each step, without trailing defaults.  So a commit writes only
the steps that changed (E15).  No Redis, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from multiagents.core.entries import Failure
from multiagents.core.json_text import dumps
from multiagents.core.policies import RetryPolicy
from multiagents.core.states import Kind, SagaState, StepState, UndoState

State = TypeVar("State", StepState, UndoState)


@dataclass(frozen=True)
class Work(Generic[State]):
    """A step's run or its undo, with all attempts.  Times are Unix milliseconds, 0 = not yet."""

    state: State
    attempt: int = 0
    """The number of the last attempt dispatched, 1-based; never reused."""
    tries: int = 0
    """Failures since the work began or an operator last retried it."""
    nonce: str = ""
    """The nonce of the last claim; reports must present it."""
    worker: str = ""
    started_at: int = 0
    ended_at: int = 0
    retry_at: int = 0
    error: Failure | None = None
    retry: RetryPolicy | None = None
    """The policy of the worker that claimed it, for steps whose definition sets none."""
    most: int = 0
    """The number of tries that its last error allows, if fewer than the policy's; else 0."""

    def is_in(self, state: StepState) -> bool:
        """Whether it is in the state of this name: run and undo share several."""
        return self.state == state

    def is_held(self, nonce: str) -> bool:
        """Whether the attempt of this claim is under way."""
        return self.is_in(StepState.RUNNING) and self.nonce == nonce

    def has_taken(self, attempt: int) -> bool:
        """Whether this attempt is dispatched or running, or has succeeded."""
        return self.attempt == attempt and self.state in _TAKEN


_TAKEN = (StepState.DISPATCHED, StepState.RUNNING, StepState.SUCCEEDED)
AnyWork = Work[StepState] | Work[UndoState]
NO_RUN = Work(StepState.WAITING)
NO_UNDO = Work(UndoState.NONE)


@dataclass(frozen=True)
class StepRun:
    """One step of one saga."""

    run: Work[StepState] = NO_RUN
    undo: Work[UndoState] = NO_UNDO
    order: int = 0
    """Position in the order of completion, 1-based; undo runs backwards along it."""
    unknown: bool = False
    """A started attempt may have left an effect that no success reported (E7)."""
    unchosen: bool = False
    """Skipped because all its dependencies were skipped, not by its own condition."""
    lost: tuple[tuple[str, int, str], ...] = ()
    """Claims without a reported outcome: ``(kind, attempt, nonce)``; a report may come late."""
    generation: int = 0
    """How often an undo had to begin afresh because an effect came to light after it."""
    again: bool = False
    """An effect came to light while the present undo was under way."""
    done: str = ""
    """The claim of the first given-up attempt that succeeded late: it is undone, whatever the
    outcomes of the other attempts."""

    @property
    def given_up(self) -> tuple[str, ...]:
        """Claims that may have succeeded after all, the one that counts first."""
        lost = (nonce for kind, _, nonce in self.lost if kind == Kind.RUN)
        return tuple(filter(None, dict.fromkeys((self.done, *lost, self.run.nonce))))

    def returned(self, nonce: str) -> bool:
        """Whether the step's result is that of this claim: not an operator's, nor another's."""
        own = self.run.nonce == nonce and self.run.error is None
        return own and self.run.state is StepState.SUCCEEDED

    def of(self, kind: Kind) -> AnyWork:
        """The run or the undo."""
        return self.run if kind is Kind.RUN else self.undo


@dataclass(frozen=True)
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
    """The reasons why an operator should look, oldest first."""
    steps: Mapping[str, StepRun] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The values of conditions: ``{"input": …, "results": {STEP: …}, "late": {NONCE: …}}``.

    ``late`` has the results of attempts that had been given up.  Empty without conditions.
    They are not part of the state.  They never change for a step that has succeeded or was skipped.
    """


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


_DEFAULT_RUN = StepRun()
_CODES = {
    "waiting": "w",
    "dispatched": "d",
    "running": "r",
    "retrying": "t",
    "succeeded": "s",
    "failed": "f",
    "skipped": "k",
    "parked": "p",
    "none": "n",
    "resolved": "v",
}
"""Of step and undo states: the server stores rows of at most 64 characters compactly."""
_BARE_RUNS = {_CODES[state]: Work(state) for state in StepState} | {"w": NO_RUN}
_BARE_UNDOS = {_CODES[state]: Work(state) for state in UndoState} | {"n": NO_UNDO}
"""Works in each state without any attempt, by code."""


def encode_step(step: StepRun, since_ms: int) -> str:
    """The row that `decode_step` takes back; times are counted from the saga's creation."""
    return dumps(
        _trimmed(
            [
                _CODES[step.run.state],
                _work_row(step.run, since_ms),
                step.order,
                step.unknown,
                step.unchosen,
                step.lost,
                _CODES[step.undo.state],
                _work_row(step.undo, since_ms),
                step.generation,
                step.again,
                step.done,
            ],
            _BLANK_RUN,
        )
    )


def _work_row(work: AnyWork, since_ms: int) -> list[Any]:
    """All of a work but its state."""
    if work is NO_RUN or work is NO_UNDO:
        return []
    return _trimmed(
        [
            work.attempt,
            work.tries,
            work.nonce,
            work.worker,
            _offset(work.started_at, since_ms),
            _offset(work.ended_at, since_ms),
            _offset(work.retry_at, since_ms),
            [work.error.type, work.error.message] if work.error else None,
            work.retry.to_row() if work.retry else None,
            work.most,
            work.error.place if work.error else "",
        ],
        _BLANK_WORK,
    )


_BLANK_WORK: list[Any] = [0, 0, "", "", 0, 0, 0, None, None, 0, ""]
_BLANK_RUN: list[Any] = ["w", [], 0, False, False, (), "n", [], 0, False, ""]
_NAMELESS = "?"
"""For `StepRun.done` in format 1, which had only a flag."""


def decode_step(row: list[Any], since_ms: int) -> StepRun:
    """A step from its parsed row."""
    if not row:
        return _DEFAULT_RUN
    row = _filled(row, _BLANK_RUN)
    state, work, order, unknown, unchosen, lost, undo_state, undo, generation, again, done = row
    return StepRun(
        _decode_work(_BARE_RUNS[state], work, since_ms),
        _decode_work(_BARE_UNDOS[undo_state], undo, since_ms),
        order,
        unknown,
        unchosen,
        tuple((kind, attempt, nonce) for kind, attempt, nonce in lost),
        generation,
        again,
        _NAMELESS if done is True else done,
    )


def _decode_work(bare: Work[State], row: list[Any], since_ms: int) -> Work[State]:
    if not row:
        return bare
    attempt, tries, nonce, worker, started, ended, retry_at, *rest = _filled(row, _BLANK_WORK)
    return Work(
        bare.state,
        attempt,
        tries,
        nonce,
        worker,
        started_at=_moment(started, since_ms),
        ended_at=_moment(ended, since_ms),
        retry_at=_moment(retry_at, since_ms),
        error=_decode_failure(rest[0], rest[3]),
        retry=None if rest[1] is None else RetryPolicy.from_row(rest[1]),
        most=rest[2],
    )


def _offset(at_ms: int, since_ms: int) -> int:
    """A time as milliseconds after another, 0 for none; a clock may have been behind."""
    if not at_ms:
        return 0
    return at_ms - since_ms + 1 if at_ms >= since_ms else at_ms - since_ms


def _moment(offset: int, since_ms: int) -> int:
    """The time that `_offset` was given."""
    if not offset:
        return 0
    return since_ms + offset - 1 if offset > 0 else since_ms + offset


def encode_head(saga: Saga) -> str:
    """Everything of a saga but its id, definition, steps and values."""
    row = list(_head_of(saga))
    for index in _TIMES:
        row[index] = _offset(row[index], saga.created_at)
    for index in _FLAGS:
        row[index] = int(row[index])
    if saga.error is not None:
        row[_ERROR] = [saga.error.type, saga.error.message]
    return dumps(_trimmed(row, _BLANK_HEAD))


def decode_saga(
    saga_id: str,
    definition: tuple[str, str],
    *,
    head: list[Any],
    steps: Mapping[str, list[Any]],
) -> Saga:
    """A saga from its parsed head and step rows (in definition order).

    ``definition``: the workflow's name and version.
    """
    row = _filled(head, _BLANK_HEAD)
    values = dict(zip(_HEAD, row, strict=True))
    since_ms = values["created_at"]
    values["state"] = SagaState(values["state"])
    values["error"] = _decode_failure(values["error"])
    values["attention"] = tuple(values["attention"])
    for index in _TIMES:
        values[_HEAD[index]] = _moment(row[index], since_ms)
    for index in _FLAGS:
        values[_HEAD[index]] = bool(row[index])
    runs = {name: decode_step(row, since_ms) for name, row in steps.items()}
    values["error"] = _placed(values["error"], runs.get(values["error_step"]))
    return Saga(saga_id, *definition, steps=runs, **values)


_KEPT_ELSEWHERE = {"id", "workflow", "version", "steps", "values"}
_HEAD = tuple(spec.name for spec in fields(Saga) if spec.name not in _KEPT_ELSEWHERE)
_head_of = attrgetter(*_HEAD)
_BLANK_HEAD = [getattr(Saga("", "", ""), name) for name in _HEAD]
_TIMES = tuple(map(_HEAD.index, ("updated_at", "ended_at")))
_FLAGS = tuple(n for n, default in enumerate(_BLANK_HEAD) if isinstance(default, bool))
_ERROR = _HEAD.index("error")


def _decode_failure(row: list[str] | None, place: str = "") -> Failure | None:
    return None if row is None else Failure(row[0], row[1], place)


def _placed(error: Failure | None, step: StepRun | None) -> Failure | None:
    """The saga's error, with its place, which the failed step keeps."""
    own = step.run.error if step else None
    return own if own is not None and own == error else error


def _trimmed(row: list[Any], blank: list[Any]) -> list[Any]:
    """A row without the defaults at its end."""
    end = len(row)
    while end and row[end - 1] == blank[end - 1]:
        end -= 1
    del row[end:]
    return row


def _filled(row: list[Any], blank: list[Any]) -> list[Any]:
    """A row with the defaults that `_trimmed` left out."""
    return [*row, *blank[len(row) :]]
