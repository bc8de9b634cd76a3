"""What does a failed test's report show about the sagas that the test ran?

The events of each saga, attempt by attempt, and the output of `explain` for a saga that is not
completed.  The text has no inputs, no results and no secrets: errors are stored without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from multiagents.core.states import SagaState
from multiagents.core.texts import shown_line
from multiagents.hosting.eager import EagerRunner
from multiagents.operations.event_words import happened

TITLE = "sagas of this test"
MOST_SAGAS = 5
"""Sagas in the report, the latest ones; a test seldom has more."""
MOST_EVENTS = 30
"""Lines of one saga, the latest ones."""
WIDEST = 400
"""Characters of a line: an error may have a whole page."""


def told(runner: EagerRunner) -> str:
    """The section of a report; empty if the test ran no saga.  Changes nothing."""
    saga_ids = list(dict.fromkeys([*(each.saga_id for each in runner.path), *runner.outcomes]))
    shown = saga_ids[-MOST_SAGAS:]
    left_out = len(saga_ids) - len(shown)
    parts = [f"({left_out} earlier sagas are left out)"] if left_out else []
    return "\n\n".join([*parts, *("\n".join(_lines(runner, each)) for each in shown)])


def _lines(runner: EagerRunner, saga_id: str) -> Iterator[str]:
    saga: dict[str, Any] = runner.host.call("get", saga_id)
    yield f"saga {saga_id} of workflow {saga['workflow']!r}: {saga['state']}"
    events = runner.host.call("history", saga_id)
    if len(events) > MOST_EVENTS:
        yield f"  ({len(events) - MOST_EVENTS} earlier events are left out)"
    for event in events[-MOST_EVENTS:]:
        yield _cut(f"  {_line(event)}")
    if saga["state"] != SagaState.COMPLETED:
        for reason in runner.host.call("explain", saga_id)["reasons"]:
            yield _cut(reason["text"])


def _line(event: dict[str, Any]) -> str:
    one = happened(event)
    attempt = "" if one.attempt is None else f" (attempt {one.attempt})"
    return f"{one.step}: {one.word}{attempt}{f': {one.rest}' if one.rest else ''}"


def _cut(text: str) -> str:
    line = shown_line(text)
    return line if len(line) <= WIDEST else f"{line[:WIDEST]}…"
