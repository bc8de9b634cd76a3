"""How does a saga look to a person?

From the JSON shape that `service.describe` gives to tables; nothing here asks the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from multiagents.cli.output import cell, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Saga = Mapping[str, Any]

BAR_WIDTH = 20
STEP_COLUMNS = ("STEP", "STATE", "ATTEMPT", "TIME", "PROGRESS", "NOTE", "UNDO")


def saga_lines(saga: Saga) -> Table:
    """The facts of a saga that are not its steps'."""
    rows = [
        ("saga", saga["transaction_id"]),
        ("workflow", f"{saga['workflow']} ({saga['version']})"),
        ("state", saga["state"]),
        ("created", saga["created_at"]),
        ("updated", saga["updated_at"]),
        ("input", _short(saga["input"])),
    ]
    if saga["result"] is not None:
        rows.append(("result", _short(saga["result"])))
    if saga["error"]:
        rows.append(("error", error_text(saga["error"])))
    rows += [("attention", reason) for reason in saga["attention"]]
    made = table(("", ""), rows)
    made.show_header = False
    return made


def steps_table(saga: Saga, now_ms: int) -> Table:
    """A line per step: state, attempt, time, progress, note or error, undo."""
    rows = [_step_row(name, step, now_ms) for name, step in saga["steps"].items()]
    return table(STEP_COLUMNS, rows)


def saga_view(saga: Saga, now_ms: int) -> RenderableType:
    """All of a saga for a person."""
    from rich.console import Group

    return Group(saga_lines(saga), "", steps_table(saga, now_ms))


def live_view(saga: Saga, now_ms: int) -> RenderableType:
    """What `watch` shows: one line about the saga, then its steps."""
    from rich.console import Group
    from rich.text import Text

    title = Text.assemble(
        (f"{saga['workflow']} ", "bold"),
        saga["transaction_id"],
        " ",
        cell(saga["state"]),
        f"  {seconds(_ms(saga['created_at']), _ended_ms(saga, now_ms))}",
    )
    notes = [Text(error_text(saga["error"]), style="red")] if saga["error"] else []
    notes += [Text(f"needs attention: {reason}", style="red") for reason in saga["attention"]]
    return Group(title, steps_table(saga, now_ms), *notes)


def sagas_table(rows: Sequence[Saga]) -> Table:
    """A line per saga."""
    return table(
        ("SAGA", "WORKFLOW", "STATE", "STEP", "CREATED", "TAGS", "ATTENTION"),
        [
            (
                row["transaction_id"],
                row["workflow"],
                row["state"],
                row["current_step"],
                row["created_at"],
                ", ".join(row["tags"]),
                "yes" if row["needs_attention"] else None,
            )
            for row in rows
        ],
    )


def history_table(events: Sequence[Mapping[str, Any]]) -> Table:
    """A line per event."""
    return table(
        ("AT", "EVENT", "STEP", "ATTEMPT", "WORKER", "DATA"),
        [
            (
                event["at"],
                event["type"],
                event["step"],
                event["attempt"],
                event["worker"],
                _short(event["data"]) if event["data"] else None,
            )
            for event in events
        ],
    )


def step_line(name: str, step: Mapping[str, Any]) -> str:
    """A change of a step where there is no live display."""
    parts = [name, step["state"]]
    if step["attempts"]:
        parts.append(f"(attempt {step['attempts']})")
    percent, note = _progress(step)
    if percent is not None:
        parts.append(f"{percent:.0%}")
    parts += [text for text in (note, _undo(step) and f"undo: {_undo(step)}") if text]
    return " ".join(parts)


def error_text(error: Mapping[str, Any]) -> str:
    """An error as ``step: Type: message``."""
    place = f"{error['step']}: " if error.get("step") else ""
    return f"{place}{error.get('type', 'Error')}: {error.get('message', '')}"


def seconds(start_ms: int | None, end_ms: int | None) -> str | None:
    """The time between two times; None if it has not begun."""
    if start_ms is None or end_ms is None:
        return None
    elapsed = max(0.0, (end_ms - start_ms) / 1000)
    if elapsed < 60:
        return f"{elapsed:.1f} s"
    minutes, rest = divmod(int(elapsed), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _step_row(name: str, step: Mapping[str, Any], now_ms: int) -> tuple[Any, ...]:
    percent, note = _progress(step)
    error = step["error"]
    started_ms = _ms(step["started_at"])
    return (
        name,
        step["state"],
        step["attempts"] or None,
        seconds(started_ms, _ms(step["ended_at"]) or now_ms),
        _bar(percent) if percent is not None and step["state"] == "running" else None,
        error_text(error) if error else note,
        _undo(step),
    )


def _progress(step: Mapping[str, Any]) -> tuple[float | None, str]:
    told = step.get("progress") or {}
    return told.get("progress"), told.get("note") or ""


def _undo(step: Mapping[str, Any]) -> str | None:
    undo = step["compensation"]
    if undo is None:
        return None
    error = f": {error_text(undo['error'])}" if undo["error"] else ""
    attempts = f" (attempt {undo['attempts']})" if undo["attempts"] > 1 else ""
    return f"{undo['state']}{attempts}{error}"


def _bar(percent: float) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=1.0, completed=percent, width=BAR_WIDTH)


def _ended_ms(saga: Saga, now_ms: int) -> int | None:
    return _ms(saga["updated_at"]) if has_ended(saga) else now_ms


def has_ended(saga: Saga) -> bool:
    """Whether nothing but a command moves the saga any more."""
    from multiagents.core.states import ENDED

    return saga["state"] in ENDED


def _ms(at: str | None) -> int | None:
    return None if at is None else round(datetime.fromisoformat(at).timestamp() * 1000)


def _short(value: Any, limit: int = 400) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
