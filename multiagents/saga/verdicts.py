"""Does a returned result count as a success?

A forward result is never interpreted, unless its step has a ``failed_when`` (rule 2).  It is judged
once, where it is reported, and the verdict goes into the log.  So the result of a later attempt
cannot change the verdict on this one.  Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from multiagents.core.entries import Failed, Failure, Report, Succeeded
from multiagents.core.states import Kind
from multiagents.workflows.expressions import ConditionError, States, before, evaluate
from multiagents.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Given:
    """The values of a step: its saga's input and the results before it, by name, as JSON."""

    input: str
    results: Mapping[str, str]
    states: States
    """The end states of the steps before it that have no result."""


def is_judged(workflow: Workflow, returned: Succeeded) -> bool:
    """Whether its step has a ``failed_when``."""
    return returned.kind is Kind.RUN and workflow.by_name[returned.step].failed_when is not None


def judged(workflow: Workflow, returned: Succeeded, result: str, given: Given) -> Report:
    """The report itself, or the failure that the step's ``failed_when`` makes of a JSON result."""
    expression = workflow.by_name[returned.step].failed_when
    if expression is None:
        return returned
    own = json.loads(result)
    results = {step: json.loads(text) for step, text in given.results.items()}
    values = {
        "input": json.loads(given.input),
        "steps": before(results | {returned.step: own}, given.states),
        "result": own,
    }
    try:
        refused = evaluate(expression, values, step=returned.step)
    except ConditionError as error:
        return _failed(returned, Failure("ConditionError", str(error)))
    if not refused:
        return returned
    return _failed(returned, Failure("ResultRefused", f"its result meets {expression!r}"))


def _failed(returned: Succeeded, error: Failure) -> Failed:
    return Failed(returned.at_ms, *returned.ref, returned.nonce, error=error)
