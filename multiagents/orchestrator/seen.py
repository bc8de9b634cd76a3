"""What do expressions see of the steps before theirs?

Results lie in the data hash.  What has none there was skipped, or a person has taken it for done
by hand: only the saga's own rows tell which.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from multiagents.core.states import StepState
from multiagents.orchestrator.saga import decode_step
from multiagents.orchestrator.workflow import Workflow
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.keys import SagaKeys

States = Mapping[str, StepState]
"""Of the steps before one, those that have no result."""


def as_seen(state: StepState, result: Any = None) -> dict[str, Any]:
    """One of ``steps``; what was done by hand has an empty result."""
    if state is not StepState.SUCCEEDED:
        return {"state": state.value}
    return {"state": state.value, "result": {} if result is None else result}


def before(results: Mapping[str, Any], states: States) -> dict[str, Any]:
    """``steps``: those with a result, and those without."""
    done = {step: as_seen(StepState.SUCCEEDED, result) for step, result in results.items()}
    return {step: as_seen(state) for step, state in states.items()} | done


def without_result(workflow: Workflow, step: str, results: Container[str]) -> list[str]:
    """Of the steps before one, the names of those that have no result."""
    return [name for name in workflow.ancestors(step) if name not in results]


def states_of(
    keys: SagaKeys, workflow: Workflow, step: str, results: Container[str]
) -> Flow[States]:
    """Ask how those without a result ended; all had ended when the step began."""
    names = without_result(workflow, step, results)
    if not names:
        return {}
    rows = yield from ask(store.rows(keys, names))
    return {name: decode_step(row, 0).state for name, row in zip(names, rows, strict=True)}
