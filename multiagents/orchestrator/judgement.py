"""Does a returned result count as a success?

A forward result is never interpreted, unless its step says ``failed_when`` (rule 2).  It is judged
once, where it is reported, and the verdict goes into the log: a later attempt's result must not
change what is known of this one.  Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from multiagents.core.entries import Failed, Failure, Report, Succeeded
from multiagents.core.states import Kind, StepState
from multiagents.orchestrator.conditions import ConditionError, evaluate
from multiagents.orchestrator.workflow import Workflow


def judged(
    workflow: Workflow,
    entry: Succeeded,
    result: str,
    *,
    input: str,  # noqa: A002 - what conditions call it
    results: Mapping[str, str],
) -> Report:
    """The report itself, or the failure that the step's ``failed_when`` makes of it.

    ``result``, ``input`` and ``results`` (of the steps before, by name) are JSON.
    """
    expression = workflow.by_name[entry.step].failed_when
    if expression is None or entry.kind is Kind.UNDO:
        return entry
    own = json.loads(result)
    seen = {step: json.loads(text) for step, text in results.items()} | {entry.step: own}
    values = {
        "input": json.loads(input),
        "steps": {
            step: {"state": StepState.SUCCEEDED.value, "result": value}
            for step, value in seen.items()
        },
        "result": own,
    }
    try:
        refused = evaluate(expression, values, step=entry.step)
    except ConditionError as error:
        return _failed(entry, Failure("ConditionError", str(error)))
    if not refused:
        return entry
    return _failed(entry, Failure("ResultRefused", f"its result meets {expression!r}"))


def _failed(entry: Succeeded, error: Failure) -> Failed:
    return Failed(entry.at_ms, entry.kind, entry.step, entry.attempt, entry.nonce, error=error)
