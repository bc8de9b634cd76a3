"""How is a saga printed as text?

Tables from the JSON shape of `projection.describe`; nothing here reads the server.  The words for
events are those of `operations.event_words`, and ids are never cut (`cli.rows`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multiagents.cli.output import cell, table
from multiagents.cli.rows import Rows
from multiagents.cli.times import ago, ahead, moment, ms_of, seconds, since_start
from multiagents.core.exceptions import told_of_error

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

Saga = Mapping[str, Any]

BAR_WIDTH = 20
STEP_COLUMNS = ("STEP", "STATE", "ATTEMPT", "TIME", "UNDO")
HISTORY_COLUMNS = ("TIME", "STEP", "ATTEMPT", "WHAT HAPPENED", "WORKER", "WHY")
SAGA_COLUMNS = (
    *("SAGA", "WORKFLOW", "STATE", "CREATED", "TIME", "STEP", "KEY", "TAGS", "ATTENTION", "ERROR"),
)
SHORT, SHORT_RESULT = 400, 120
"""How many characters of a value are shown, for a saga and for a step."""


def saga_lines(saga: Saga, now_ms: int, *, full: bool = False) -> Table:
    """The facts of a saga without its steps."""
    limit = None if full else SHORT
    created_ms, updated_ms = ms_of(saga["created_at"]) or 0, ms_of(saga["updated_at"]) or 0
    ended_ms = ms_of(saga["ended_at"])
    facts = [
        ("saga", saga["transaction_id"]),
        ("workflow", f"{saga['workflow']} ({saga['version']})"),
        ("state", saga["state"]),
        ("asked", _asked(saga, now_ms)),
        *(("settled", text) for text in _settled(saga, now_ms)),
        ("key", saga.get("idempotency_key")),
        ("tags", ", ".join(saga.get("tags", ()))),
        ("created", moment(created_ms, now_ms)),
        ("ended", None if ended_ms is None else moment(ended_ms, now_ms)),
        ("updated", None if updated_ms == ended_ms else moment(updated_ms, now_ms)),
        ("time", seconds(created_ms, _ended_ms(saga, now_ms))),
        ("input", _short(saga["input"], limit)),
        ("result", None if saga["result"] is None else _short(saga["result"], limit)),
        ("error", error_text(saga["error"]) if saga["error"] else None),
        *(("attention", reason) for reason in saga["attention"]),
    ]
    made = table(("", ""), [fact for fact in facts if fact[1]])
    made.show_header = False
    return made


def _asked(saga: Saga, now_ms: int) -> str | None:
    """The operator's action that moved it to its state: ``pause by ada, 2 min ago: why``."""
    asked = saga.get("asked")
    if asked is None:
        return None
    who = f" by {asked.by}" if asked.by else ""
    return f"{asked.action}{who}, {_when_and_why(asked, now_ms)}"


def _settled(saga: Saga, now_ms: int) -> Iterator[str]:
    """The settled dead letters: ``step 'mail' skipped by ada, 2 min ago: why``."""
    from multiagents.operations.settlements import told_of

    for done, asked in told_of(saga.get("settled", ())):
        yield f"{done}, {_when_and_why(asked, now_ms)}"


def _when_and_why(asked: Any, now_ms: int) -> str:
    why = f": {asked.reason}" if asked.reason else ""
    return f"{moment(asked.at_ms, now_ms)}{why}"


def steps_table(
    saga: Saga, now_ms: int, *, results: bool = False, full: bool = False
) -> RenderableType:
    """A line per step; below it progress, error, next attempt, result and undo, where present."""
    found = saga.get("step_results", {}) if results else {}
    limit = None if full else SHORT_RESULT
    rows, below = [], []
    for name, step in saga["steps"].items():
        rows.append(_step_row(name, step, now_ms))
        shown = {"result": _short(found[name], limit)} if name in found else {}
        below.append(list(_below(step, now_ms, shown)))
    return Rows(STEP_COLUMNS, rows, below)


def saga_view(saga: Saga, now_ms: int, *, full: bool = False) -> RenderableType:
    """A whole saga as text."""
    from rich.console import Group

    facts = saga_lines(saga, now_ms, full=full)
    return Group(facts, "", steps_table(saga, now_ms, results=True, full=full))


def live_view(saga: Saga, now_ms: int) -> RenderableType:
    """The table of `watch`: one line about the saga, then its steps."""
    from rich.console import Group
    from rich.text import Text

    title = Text.assemble(
        (f"{saga['workflow']} ", "bold"),
        saga["transaction_id"],
        " ",
        cell(saga["state"]),
        f"  {seconds(ms_of(saga['created_at']), _ended_ms(saga, now_ms))}",
    )
    notes = [Text(error_text(saga["error"]), style="red")] if saga["error"] else []
    notes += [Text(f"needs attention: {reason}", style="red") for reason in saga["attention"]]
    return Group(title, steps_table(saga, now_ms), *notes)


def sagas_table(
    rows: Sequence[Saga], now_ms: int, *, shows: Sequence[str] = (), error: str = ""
) -> RenderableType:
    """A line per saga, or two where the window is narrow.

    ``shows``: keys of the input that get a column.  ``error``: the text by which sagas were found;
    each row then shows the matching error.
    """
    first, *rest = SAGA_COLUMNS
    columns = (first, *(key.upper() for key in shows), *rest)
    found = [_saga_row(row, now_ms, shows, error) for row in rows]
    return Rows(columns, found, keeps=1 + len(shows))


def _saga_row(row: Saga, now_ms: int, shows: Sequence[str], error: str) -> tuple[Any, ...]:
    from multiagents.operations.saga_filter import matching_error

    created_ms = ms_of(row["created_at"])
    told = (error and matching_error(row, error)) or row["error"]
    return (
        row["transaction_id"],
        *(_of_input(row, key) for key in shows),
        row["workflow"],
        row["state"],
        None if created_ms is None else ago(created_ms, now_ms),
        seconds(created_ms, _ended_ms(row, now_ms)),
        row["current_step"],
        row["idempotency_key"],
        ", ".join(row["tags"]),
        "; ".join(row["attention"]),
        error_text(told) if told else None,
    )


def _of_input(row: Saga, key: str) -> str | None:
    from multiagents.operations.saga_filter import value_at

    value = value_at(row["input"], key)
    return value if value is None or isinstance(value, str) else _short(value, SHORT_RESULT)


def history_table(events: Sequence[Mapping[str, Any]], *, workers: bool = True) -> RenderableType:
    """A line per event, with the time since the saga's start."""
    from multiagents.operations.event_words import happened

    start_ms = ms_of(events[0]["at"]) or 0 if events else 0
    times = [since_start(ms_of(event["at"]) or 0, start_ms) for event in events]
    width = max(map(len, times), default=0)
    rows = []
    for time, event in zip(times, events, strict=True):
        told = happened(event)
        worker = event["worker"] if workers else None
        rows.append((f"{time:>{width}}", told.step, told.attempt, told.word, worker, told.rest))
    return Rows(HISTORY_COLUMNS, rows)


def step_line(name: str, step: Mapping[str, Any]) -> str:
    """One change of a step, for output without a live display."""
    parts = [name, step["state"]]
    if step["attempts"]:
        parts.append(f"(attempt {step['attempts']})")
    percent, note = _progress(step)
    if percent is not None:
        parts.append(f"{percent:.0%}")
    undo = ": ".join(filter(None, (_undo(step), _undo_error(step))))
    return " ".join([*parts, *filter(None, (note, undo and f"undo: {undo}"))])


def error_text(error: Mapping[str, Any]) -> str:
    """An error as ``step: Type: message (pay.py:35)``."""
    place = f"{error['step']}: " if error.get("step") else ""
    return f"{place}{told_of_error(error)}"


def _step_row(name: str, step: Mapping[str, Any], now_ms: int) -> tuple[Any, ...]:
    passed = seconds(ms_of(step["started_at"]), ms_of(step["ended_at"]) or now_ms)
    return (name, step["state"], step["attempts"] or None, passed, _undo(step))


def _below(step: Mapping[str, Any], now_ms: int, shown: Mapping[str, str]) -> Iterator[Text]:
    """The lines below a step's line."""
    from rich.text import Text

    percent, note = _progress(step)
    if step["state"] == "running" and (percent is not None or note):
        yield _bar(percent, note)
    if step["error"]:
        yield cell_of(error_text(step["error"]), "red")
    elif step.get("last_error"):
        yield cell_of(f"last error: {error_text(step['last_error'])}", "yellow")
    if step.get("retry_at"):
        yield _next_try("next try", step, now_ms)
    for name, text in shown.items():
        yield Text.assemble((f"{name} ", "dim"), cell_of(text))
    undo_error = _undo_error(step)
    undo = step["compensation"] or {}
    if undo_error:
        yield cell_of(f"undo: {undo_error}", "red")
    elif undo.get("last_error"):
        yield cell_of(f"last error of the undo: {error_text(undo['last_error'])}", "yellow")
    if undo.get("retry_at"):
        yield _next_try("next try of the undo", undo, now_ms)


def cell_of(text: str, style: str = "") -> Text:
    """A user's text on one line."""
    from rich.text import Text

    return Text(" ".join(text.split("\n")), style=style)


def _next_try(what: str, work: Mapping[str, Any], now_ms: int) -> Text:
    in_time = ahead(ms_of(work["retry_at"]) or 0, now_ms)
    return cell_of(f"{what} (attempt {work['attempts'] + 1}) {in_time}", "yellow")


def _progress(step: Mapping[str, Any]) -> tuple[float | None, str]:
    told = step.get("progress") or {}
    return told.get("progress"), told.get("note") or ""


def _undo(step: Mapping[str, Any]) -> str | None:
    from multiagents.operations.event_words import undo_word

    undo = step["compensation"]
    if undo is None:
        return None
    attempts = f" (attempt {undo['attempts']})" if undo["attempts"] > 1 else ""
    return f"{undo_word(undo['state'])}{attempts}"


def _undo_error(step: Mapping[str, Any]) -> str | None:
    undo = step["compensation"]
    return error_text(undo["error"]) if undo and undo["error"] else None


def _bar(percent: float | None, note: str) -> Text:
    from rich.text import Text

    if percent is None:
        return cell_of(note)
    done = round(min(1.0, max(0.0, percent)) * BAR_WIDTH)
    bar = (("━" * done, "green"), ("━" * (BAR_WIDTH - done), "dim"))
    return Text.assemble(*bar, f" {percent:.0%} ", cell_of(note))


def _ended_ms(saga: Saga, now_ms: int) -> int | None:
    return ms_of(saga["ended_at"]) if has_ended(saga) else now_ms


def has_ended(saga: Saga) -> bool:
    """Whether only an operator's action can still move the saga."""
    from multiagents.core.states import ENDED

    return saga["state"] in ENDED


def _short(value: Any, limit: int | None = SHORT) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text)} characters)"
