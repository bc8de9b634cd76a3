"""How did a step's ancestors without a result end?

Results lie in the data hash.  A step without one was skipped, or an operator settled it by hand:
only its row in the saga's hash says which.
"""

from __future__ import annotations

from collections.abc import Container

from multiagents.saga.state import decode_step
from multiagents.storage import sagas as store
from multiagents.storage.keys import SagaKeys
from multiagents.workflows.expressions import States
from multiagents.workflows.workflow import Workflow


def without_result(workflow: Workflow, step: str, results: Container[str]) -> list[str]:
    """The names of a step's ancestors that have no result."""
    return [name for name in workflow.ancestors(step) if name not in results]


async def states_of(
    keys: SagaKeys, workflow: Workflow, step: str, results: Container[str]
) -> States:
    """The states of its ancestors without a result; all had ended when the step began."""
    names = without_result(workflow, step, results)
    if not names:
        return {}
    rows = await store.rows(keys, names)
    return {name: decode_step(row, 0).run.state for name, row in zip(names, rows, strict=True)}
