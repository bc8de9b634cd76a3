"""Why is a saga where it is, and what would move it?

Each reason has a ``code`` for programs and a ``text`` for people.  ``at`` is the time at which the
saga moves without an operator; ``commands`` are those that help.  Pure; `explain.read` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from multiagents.core.clock import iso
from multiagents.core.entries import Requested
from multiagents.core.exceptions import told_of_error
from multiagents.core.states import ENDED, Action, SagaState, StepState
from multiagents.core.texts import sentence, some_of
from multiagents.operations.settlements import Settlement, told_of
from multiagents.saga.allowed import refusal
from multiagents.saga.commands import DEADLINE
from multiagents.saga.compensation import pivot_passed, remaining_undos
from multiagents.saga.dead_letters import dead_letters_of
from multiagents.saga.draft import Draft
from multiagents.saga.outcome import failure_of, left_of
from multiagents.saga.schedule import PAST
from multiagents.saga.state import Saga
from multiagents.saga.targets import parked_notes
from multiagents.storage import keys as k
from multiagents.storage.failures import Failing
from multiagents.storage.refusals import REFUSALS
from multiagents.workflows.workflow import Workflow

WHAT_TO_DO = "What you can do:"
UNDECIDED_MS = 10_000
"""The age at which an undecided entry of a log is reported; a sweep comes sooner."""
SHOWN = 5
"""How many items of one kind a text lists."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that keeps a saga where it is, or that will move it."""

    code: str
    text: str
    step: str | None = None
    kind: str | None = None
    """``step`` or ``undo``."""
    at: str | None = None
    """The latest time at which it moves without an operator, ISO 8601; None: never, or unknown."""
    commands: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {
            "code": self.code,
            "text": self.text,
            "step": self.step,
            "kind": self.kind,
            "at": self.at,
            "commands": list(self.commands),
            **self.facts,
        }


@dataclass(frozen=True, slots=True)
class Situation:
    """A saga, and the facts beside its state that explain it."""

    saga: Saga
    workflow: Workflow
    now_ms: int
    due: Mapping[str, int]
    """Due member -> Unix ms."""
    pending: int = 0
    """The number of undecided entries in its log."""
    pending_since_ms: int = 0
    """The time of the first of them."""
    asked: Requested | None = None
    """The operator's action that moved it to its state."""
    settled: Sequence[Settlement] = ()
    """Its dead letters that operators have settled."""
    is_changed: bool = False
    """Whether its workflow's name has another definition now; the saga keeps its own."""
    workers: bool = True
    """Whether a worker runs that takes work and sweeps."""
    one_more_term: bool = False
    """Whether expired leases get one more term, after a time without sweeps (E9)."""
    server: str = ""
    """The URL of its server without a password."""
    refusal: str | None = None
    """The key in `REFUSALS` if that server refuses writes."""
    failing: Mapping[str, Failing] = field(default_factory=dict)
    """The failures of sweeps, by due member."""

    def when(self, at_ms: int) -> str:
        """A time, and how far it is from now."""
        moment = (iso(at_ms) or "").partition(".")[0].replace("T", " ")
        away_ms = at_ms - self.now_ms
        far = f"in {span(away_ms)}" if away_ms > 0 else f"{span(-away_ms)} ago"
        return f"{moment} UTC ({far})"


def span(ms: float) -> str:
    """A duration in its largest unit."""
    for unit, size, most in (("ms", 1, 1000), ("s", 1000, 120), ("min", 60_000, 120)):
        if ms < size * most:
            return f"{ms / size:.0f} {unit}"
    hours = ms / 3_600_000
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def explanation(now: Situation, work: Iterable[Reason]) -> dict[str, Any]:
    """The result of `explain`; ``work``: the reasons of running and parked steps (`underway`)."""
    reasons = [*_of_the_saga(now), *work, *_failing(now), *_of_the_rest(now)]
    if not reasons:
        nothing = Reason("nothing", "Nothing of it is under way.")
        reasons = [_undecided(now) if now.pending else nothing]
    if now.refusal:
        reasons = [_no_writes(now), *(replace(reason, at=None) for reason in reasons)]
    commands = list(dict.fromkeys(each for reason in reasons for each in reason.commands))
    summary = _head(now)
    paragraphs = [summary, *(reason.text for reason in reasons)]
    if commands:
        paragraphs.append("\n  ".join([WHAT_TO_DO, *commands]))
    return {
        "transaction_id": now.saga.id,
        "workflow": now.saga.workflow,
        "state": now.saga.state.value,
        "summary": summary,
        "text": "\n\n".join(paragraphs),
        "reasons": [reason.to_dict() for reason in reasons],
        "commands": commands,
    }


def _head(now: Situation) -> str:
    saga = now.saga
    name = f"Saga {saga.id} of workflow {saga.workflow!r}"
    if saga.state in ENDED:
        took = span(max(0, saga.ended_at - saga.created_at))
        return f"{name} ended {saga.state} at {now.when(saga.ended_at)}, {took} after its start."
    return f"{name}, started at {now.when(saga.created_at)}, is {saga.state}."


def _no_writes(now: Situation) -> Reason:
    why = REFUSALS[now.refusal or ""]
    then = "" if now.saga.state in ENDED else "; then it continues"
    text = (
        f"Its server, {now.server}, takes no writes: {why}. Until that is fixed,"
        f" nothing moves it and no action works{then}."
    )
    facts = {"server": now.server, "refusal": now.refusal}
    return Reason("no_writes", text, commands=("multiagents doctor",), facts=facts)


def _failing(now: Situation) -> Iterator[Reason]:
    for failing in now.failing.values():
        times = "once" if failing.times == 1 else f"{failing.times} times"
        last = span(max(0, now.now_ms - failing.last_ms))
        why = sentence(failing.why)
        text = f"A worker has tried to move it {times}, last {last} ago, and failed: {why}"
        facts = {"failures": failing.times, "error": failing.why}
        yield Reason("failing", text, commands=("multiagents doctor",), facts=facts)


# ---- the saga's own state ----


def _of_the_saga(now: Situation) -> Iterator[Reason]:
    saga = now.saga
    if saga.state is SagaState.PAUSED:
        yield _paused(now)
    elif saga.state is SagaState.COMPENSATING:
        yield _compensating(now)
    elif saga.state in ENDED:
        yield _ended(now)
    if saga.halting:
        yield _halting(now)
    if now.settled:
        yield _settled(now)


def _paused(now: Situation) -> Reason:
    who = _by(now, Action.PAUSE)
    text = f"It was paused{who}: no new step begins, running ones end."
    return Reason("paused", text, commands=(f"multiagents resume {now.saga.id}",))


def _compensating(now: Situation) -> Reason:
    saga = now.saga
    left = _to_undo(now)
    then = f"After what is under way, these are undone: {_listed(left)}." if left else ""
    text = f"It is being undone because {sentence(_cause(now))} {then}".strip()
    return Reason("compensating", text, facts={"to_undo": left, "error": failure_of(saga)["error"]})


def _to_undo(now: Situation) -> list[str]:
    return remaining_undos(Draft(now.workflow, now.saga))


def _ended(now: Situation) -> Reason:
    saga = now.saga
    kept = now.due.get(k.due_purge(saga.id))
    until = f" It is kept until {now.when(kept)}." if kept else ""
    commands: tuple[str, ...] = ()
    if saga.state is SagaState.COMPLETED:
        text = "All its steps are done."
        if not refusal(now.workflow, saga, Action.ROLLBACK):
            commands = (f"multiagents rollback {saga.id}",)
    else:
        text = f"The reason: {sentence(_cause(now))}{_undone(now)}"
    open_letters = any(dead_letters_of(saga)) or bool(parked_notes(saga))
    last = " It waits for an operator." if open_letters else " It moves no further."
    facts = {"error": failure_of(saga)["error"], "kept_until": iso(kept) if kept else None}
    return Reason("ended", f"{text}{last}{until}", commands=commands, facts=facts)


def _cause(now: Situation) -> str:
    saga = now.saga
    for flag, action, word in (
        (saga.terminated, Action.TERMINATE, "it was terminated"),
        (saga.rolled_back, Action.ROLLBACK, "it was rolled back"),
        (saga.cancelled, Action.CANCEL, "it was cancelled"),
    ):
        if flag:
            return f"{word}{_by(now, action)}"
    if saga.error is None:
        return "of a late effect"
    error = told_of_error(saga.error.to_dict())
    return f"step {saga.error_step!r} failed with {error}" if saga.error_step else error


def _undone(now: Situation) -> str:
    """The outcome of its undos, and the effects that stay."""
    undo, left = failure_of(now.saga)["undo"], left_of(now.workflow, now.saga)
    told = ", ".join(f"{step} {each['state']}" for step, each in undo.items())
    found = [f" Undo: {told}."] if undo else []
    found += [f" Left as they are: {', '.join(left)}."] if left else []
    return "".join(found) or " There was nothing to undo."


def _by(now: Situation, action: Action) -> str:
    asked = now.asked
    if asked is None or asked.action is not action:
        return ""
    who = f" by {asked.by}" if asked.by else ""
    return f"{who} at {now.when(asked.at_ms)}{_why(asked)}"


def _why(asked: Requested) -> str:
    return f" ({asked.reason!r})" if asked.reason else ""


def _settled(now: Situation) -> Reason:
    told = [
        f"{done} at {now.when(asked.at_ms)}{_why(asked)}" for done, asked in told_of(now.settled)
    ]
    text = f"Settled: {some_of(told, SHOWN, by='; ')}."
    facts = {"settled": [each.to_dict() for each in now.settled]}
    return Reason("settled", text, facts=facts)


def _halting(now: Situation) -> Reason:
    pivot = now.workflow.pivot.name if now.workflow.pivot else ""
    text = (
        f"Its {now.saga.halting} is on hold until it is known whether its point of no return, step"
        f" {pivot!r}, began in time."
    )
    return Reason("halting", text, step=pivot)


# ---- what else bears on it ----


def _of_the_rest(now: Situation) -> Iterator[Reason]:
    saga = now.saga
    if saga.state in {SagaState.RUNNING, SagaState.PAUSED}:
        yield from _waiting(now)
    deadline_ms = now.due.get(k.due_timer(saga.id, DEADLINE))
    stopping = saga.halting or saga.state is SagaState.COMPENSATING
    if deadline_ms is not None and not stopping and saga.state not in ENDED:
        yield _deadline(now, deadline_ms)
    if now.pending and not _is_fresh(now):
        yield _undecided(now)
    untold = parked_notes(saga)
    if untold:
        yield _untold(now, untold)
    notes = [each for each in saga.attention if each not in untold and not _is_parked(each)]
    if notes:
        commands = () if any(dead_letters_of(saga)) else _acknowledge(saga)
        text = f"An operator should know: {sentence('; '.join(notes))}"
        yield Reason("attention", text, commands=commands, facts={"attention": notes})


def _waiting(now: Situation) -> Iterator[Reason]:
    """The steps that have not begun: they wait for other steps, or only for a resume."""
    steps = now.saga.steps
    waiting = [name for name, step in steps.items() if step.run.state is StepState.WAITING]
    if not waiting:
        return
    ready = [
        name
        for name in waiting
        if now.saga.state is SagaState.PAUSED
        and all(steps[each].run.state in PAST for each in now.workflow.by_name[name].depends_on)
    ]
    others = [name for name in waiting if name not in ready]
    texts = [
        f"{_listed(names)} {'begins' if len(names) == 1 else 'begin'} when {then}."
        for names, then in (
            (ready, "the saga is resumed"),
            (others, "what comes before has ended"),
        )
        if names
    ]
    yield Reason("waiting", " ".join(texts), facts={"steps": waiting})


def _is_parked(note: str) -> bool:
    return note.endswith(" is parked")


def _untold(now: Situation, notes: tuple[str, ...]) -> Reason:
    """Callbacks of its end that Celery refuses; a retry of its dead letters sends them again."""
    text = f"Celery refused callbacks of its end: {sentence('; '.join(notes))} All others are sent."
    commands: tuple[str, ...] = (f"multiagents dead-letters retry {now.saga.id}",)
    if not any(dead_letters_of(now.saga)):
        commands = (*commands, *_acknowledge(now.saga))
    return Reason("untold", text, commands=commands, facts={"untold": list(notes)})


def _deadline(now: Situation, deadline_ms: int) -> Reason:
    pivot, facts = now.workflow.pivot, {"deadline": iso(deadline_ms)}
    state = now.saga.steps[pivot.name].run.state if pivot else StepState.SKIPPED
    name = f"its point of no return, step {pivot.name!r}," if pivot else ""
    text = f"Its deadline is at {now.when(deadline_ms)}"
    if pivot_passed(now.workflow, now.saga.steps):
        passed = "is passed" if state is StepState.SUCCEEDED else "may be passed"
        text += f"; since {name} {passed}, nothing is undone then: it only asks for attention."
        return Reason("deadline", text, facts=facts)
    begun = f", unless {name} has begun by then" if state is not StepState.SKIPPED else ""
    text += f"; then what it did is undone{begun}."
    return Reason("deadline", text, at=iso(deadline_ms), facts=facts)


def _acknowledge(saga: Saga) -> tuple[str, ...]:
    return (f'multiagents dead-letters resolve {saga.id} --reason "..."',)


def _is_fresh(now: Situation) -> bool:
    """Whether undecided entries need no reason yet, since a worker will decide over them soon."""
    age_ms = now.now_ms - now.pending_since_ms
    return now.workers and not now.refusal and age_ms < UNDECIDED_MS


def _undecided(now: Situation) -> Reason:
    count = "1 event" if now.pending == 1 else f"{now.pending} events"
    text = f"{count} of it {'is' if now.pending == 1 else 'are'} recorded but not processed yet: "
    if now.refusal:
        text += "that needs a write."
    else:
        text += "a worker does so within seconds." if now.workers else "no worker runs to do so."
    return Reason("undecided", text, facts={"entries": now.pending})


def _listed(names: Iterable[str]) -> str:
    return some_of(map(repr, names), SHOWN)
