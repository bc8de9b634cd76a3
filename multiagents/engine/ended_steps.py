"""How did the steps before one end that have no result?

Results lie in the data hash.  What has none there was skipped, or a person has taken it for done
by hand: only the saga's own rows tell which.
"""

from __future__ import annotations

from collections.abc import Container

from multiagents.saga.state import decode_step
from multiagents.storage import sagas as store
from multiagents.storage.keys import SagaKeys
from multiagents.workflows.expressions import States
from multiagents.workflows.workflow import Workflow


def without_result(workflow: Workflow, step: str, results: Container[str]) -> list[str]:
    """Of the steps before one, the names of those that have no result."""
    return [name for name in workflow.ancestors(step) if name not in results]


async def states_of(
    keys: SagaKeys, workflow: Workflow, step: str, results: Container[str]
) -> States:
    """Ask how those without a result ended; all had ended when the step began."""
    names = without_result(workflow, step, results)
    if not names:
        return {}
    rows = await store.rows(keys, names)
    return {name: decode_step(row, 0).run.state for name, row in zip(names, rows, strict=True)}
