"""Which lines does `dev` print about sagas?

One line for each step event and for each state of a saga:

    order 3636fd8b  reserve  failed, attempt 1 of 3: OSError: no stock (shop.py:6); again in 1.4 s

Each line comes from a commit, so only the process that decided prints it.  The line names the
consequence: the next attempt, a dead letter, the end.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multiagents.cli.own_code import own_frames
from multiagents.core.entries import Entry, Failed, Failure, Lost, Requested, Succeeded, Unroutable
from multiagents.core.places import shown_path
from multiagents.core.policies import DEFAULT_RETRY, UNDO_RETRY
from multiagents.core.states import ENDED, Kind, SagaState, StepState, UndoState
from multiagents.core.texts import at_words, shown_line
from multiagents.engine.continuation import Move
from multiagents.operations.event_words import WORDS, word_of
from multiagents.saga.state import AnyWork, Saga, StepRun
from multiagents.workflows.workflow import Workflow

SHORT_ID = 8
"""How many characters of a saga's id are printed; commands accept a unique beginning."""
WIDEST = 24
"""The greatest width of the column of step names."""
SWEEP_S = 1.0
"""How often a worker sweeps by default."""
LONGEST = 300
"""How many characters of an error's message are printed."""
RED, GREEN, YELLOW, MAGENTA, DIM = "31", "32", "33", "35", "2"
_SET_IN = " " * 6
"""The indent of a continued line, deeper than that of the user's code."""
_RESET = "\033[0m"
_COLOURS = {
    "succeeded": GREEN,
    "completed": GREEN,
    "undone": YELLOW,
    "compensating": YELLOW,
    "compensated": YELLOW,
    "paused": MAGENTA,
    "cancelled": MAGENTA,
}
"""The colour of a line, by its first word; failures are red."""
_BAD = ("failed", "lost", "no worker", "undo ", "callback refused")
_REFUSED = (StepState.FAILED, StepState.PARKED)


@dataclass(frozen=True, slots=True)
class Line:
    """One event of a step, or of the saga if ``step`` is empty."""

    workflow: str
    saga_id: str
    word: str
    step: str = ""
    width: int = 0
    """The width of the column of steps."""
    rest: str = ""
    below: tuple[str, ...] = ()
    """Lines of the user's code."""

    def text(self, *, colours: bool = False, columns: int | None = None) -> str:
        """The printed line without its end; ``columns``: the width of the terminal."""
        place = f"{self.workflow} {self.saga_id[:SHORT_ID]}"
        step = f"  {self.step:<{self.width}}" if self.step else ""
        word, rest = self.word, shown_line(self.rest)
        if colours:
            place = _painted(place, DIM)
            word = _painted(word, _colour(word))
        below = "".join(f"\n    {shown_line(line)}" for line in self.below)
        return f"{at_words(f'{place}{step}  {word}{rest}', columns, _SET_IN)}{below}"


def _painted(text: str, colour: str) -> str:
    return f"\033[{colour}m{text}{_RESET}" if colour else text


def _colour(word: str) -> str:
    return RED if word.startswith(_BAD) else _COLOURS.get(word, "")


def started(workflow: Workflow, saga_id: str) -> Line:
    """The first step of a saga begins."""
    return Line(workflow.name, saga_id, WORDS["started"])


def first_step(workflow: Workflow) -> str:
    """The step whose start counts as the saga's start."""
    return next(step.name for step in workflow.steps if not step.depends_on)


def lines_of(
    move: Move,
    error: BaseException | None = None,
    *,
    verbose: bool = False,
    sweep_s: float = SWEEP_S,
) -> Iterator[Line]:
    """The lines of a commit.  ``error``: the error just raised here, for the user's frames.

    ``sweep_s``: how often a worker sweeps; the next attempt is announced no sooner than that.
    """
    for entry in move.entries:
        line = _of_entry(move, entry, error, verbose=verbose, sweep_s=sweep_s)
        if line is not None:
            yield line
    yield from _refusals(move)
    if move.plan.moves and (line := _of_saga(move)) is not None:
        yield line


def _of_entry(
    move: Move, entry: Entry, error: BaseException | None, *, verbose: bool, sweep_s: float
) -> Line | None:
    saga, workflow = move.decision.saga, move.workflow
    if isinstance(entry, Unroutable) and entry.target and saga.delivered:
        rest = f": {entry.target}: {_error_text(entry.error)}{_advice(saga)}"
        return _line(workflow, saga, WORDS["end_unroutable"], rest=rest)
    if isinstance(entry, Requested):
        by = f" by {entry.by}" if entry.by else ""
        return _line(
            workflow, saga, f"{entry.action} {WORDS['asked']}", entry.step, by + _why(entry.reason)
        )
    if not isinstance(entry, Succeeded | Failed | Lost | Unroutable):
        return None
    run = saga.steps.get(entry.step)
    if run is None or entry.step not in move.decision.changed:
        return None  # it came too late to count
    if isinstance(entry, Succeeded):
        return _line(workflow, saga, *_success(workflow, entry, run))
    word = word_of(entry.kind, entry.type)
    told = _Trouble(workflow, entry, run)
    raised = _matching(error, entry)
    rest = f"{told.attempt}: {told.failure}{told.after(sweep_s)}"
    if told.is_parked:
        word, rest = f"{word}, parked", rest + _advice(saga)
    below = _frames(raised) if verbose or not told.is_retried else ()
    return _line(workflow, saga, word, entry.step, rest, below)


def _refusals(move: Move) -> Iterator[Line]:
    """Lines for steps that could not begin (a condition without a value): these have no entry."""
    saga = move.decision.saga
    told = {entry.step for entry in move.entries if isinstance(entry, Failed | Unroutable)}
    times = {entry.at_ms for entry in move.entries}
    for name in move.workflow.names:
        if name not in move.decision.changed or name in told:
            continue
        work = saga.steps[name].run
        if (
            work.state not in _REFUSED
            or work.error is None
            or work.nonce
            or work.ended_at not in times
        ):
            continue
        word, rest = WORDS["step_failed"], f": {_error_text(work.error)}"
        if work.state is StepState.PARKED:
            word, rest = f"{word}, parked", rest + _advice(saga)
        yield _line(move.workflow, saga, word, name, rest)


def _line(
    workflow: Workflow,
    saga: Saga,
    word: str,
    step: str = "",
    rest: str = "",
    below: Sequence[str] = (),
) -> Line:
    width = min(WIDEST, max(map(len, workflow.names)))
    return Line(workflow.name, saga.id, word, step, width, rest, tuple(below))


def _success(workflow: Workflow, entry: Succeeded, run: StepRun) -> tuple[str, str, str]:
    work = run.of(entry.kind)
    if work.nonce != entry.nonce:
        return "succeeded late", entry.step, f", attempt {entry.attempt}, which was given up"
    word = word_of(entry.kind, entry.type)
    again = f", attempt {entry.attempt}" if entry.attempt > 1 else ""
    return word, entry.step, f" in {_span(work.ended_at - work.started_at)}{again}"


class _Trouble:
    """The consequence of an unsuccessful attempt for its step."""

    def __init__(self, workflow: Workflow, entry: Failed | Lost | Unroutable, run: StepRun) -> None:
        self._entry = entry
        self._work: AnyWork = run.of(entry.kind)
        state = self._work.state
        self.is_retried = state in (StepState.RETRYING, UndoState.RETRYING)
        self.is_parked = state in (StepState.PARKED, UndoState.PARKED)
        step = workflow.by_name[entry.step]
        own, default = step.retry, DEFAULT_RETRY
        if entry.kind is Kind.UNDO:
            own, default = step.compensation_retry, UNDO_RETRY
        self._most = self._work.most or (own or self._work.retry or default).max_attempts

    @property
    def attempt(self) -> str:
        """The number of the attempt, and of its try out of how many.

        "" for a first attempt that is not retried.
        """
        tries = self._work.tries
        if self._entry.attempt < 2 and not self.is_retried:
            return ""
        if (
            self._entry.attempt != tries
        ):  # an operator has retried it, or some attempts did not count
            return f", attempt {self._entry.attempt} (try {tries} of {self._most})"
        return f", attempt {tries} of {self._most}"

    @property
    def failure(self) -> str:
        """The error."""
        found = self._entry.error if not isinstance(self._entry, Lost) else self._work.error
        return _error_text(found) if found is not None else "its worker fell silent"

    def after(self, sweep_s: float) -> str:
        """When the next attempt begins, and whether the function still runs."""
        goes_on = isinstance(self._entry, Failed) and self._entry.running
        rest = "; its function goes on" if goes_on else ""
        if self.is_retried:
            wait_ms = self._work.retry_at - self._entry.at_ms
            soon = wait_ms < sweep_s * 1000  # a sweep that sleeps now has not seen it
            rest += f"; again in {f'about {sweep_s:g} s' if soon else _span(wait_ms)}"
        return rest


def _matching(error: BaseException | None, entry: Entry) -> BaseException | None:
    """The error, if it is the one of the entry."""
    if error is None or not isinstance(entry, Failed):
        return None
    return error if type(error).__qualname__ == entry.error.type else None


def _error_text(error: Failure) -> str:
    message = error.message.strip()
    cut = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"
    place = f" ({error.place})" if error.place else ""
    return f"{error.type}: {cut}{place}" if cut else f"{error.type}{place}"


def _frames(error: BaseException | None) -> tuple[str, ...]:
    """The user's frames of a traceback, innermost last."""
    found: list[str] = []
    if error is None:
        return ()
    for frame in own_frames(error):
        found.append(f"{shown_path(frame.filename)}:{frame.lineno}, in {frame.name}")
        if frame.line:
            found.append(f"    {frame.line}")
    return tuple(found)


def _of_saga(move: Move) -> Line | None:
    saga, state = move.decision.saga, move.plan.state
    if state is SagaState.RUNNING:
        word = {SagaState.PAUSED: "resumed", SagaState.FAILED: "running again"}.get(
            move.plan.state_before or SagaState.PENDING
        )
        return None if word is None else _line(move.workflow, saga, word)
    rest = ""
    if state in ENDED:
        rest = f" after {_span(saga.ended_at - saga.created_at)}{_reason(move)}"
        if saga.attention:
            rest += f"; an operator is needed{_advice(saga)}"
    elif state is SagaState.COMPENSATING:
        rest = _reason(move)
    return _line(move.workflow, saga, str(state), rest=rest)


def _reason(move: Move) -> str:
    """Why a saga is undone or ends, if no line of a step or an operator shows it."""
    saga = move.decision.saga
    if saga.error is None or saga.error_step or saga.state is SagaState.COMPLETED:
        return ""
    is_told = move.plan.state_before is SagaState.COMPENSATING
    is_told = is_told or any(isinstance(entry, Requested) for entry in move.entries)
    return "" if is_told else f": {_error_text(saga.error)}"


def _advice(saga: Saga) -> str:
    return f"; see multiagents explain {saga.id[:SHORT_ID]}"


def _why(reason: str) -> str:
    return f": {reason}" if reason else ""


def _span(ms: int) -> str:
    seconds = max(0, ms) / 1000
    if seconds >= 60:
        minutes, rest = divmod(int(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
