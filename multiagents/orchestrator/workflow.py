"""Where do programs written after the first documents import the workflow classes from?

From here: ``from multiagents.orchestrator.workflow import WorkflowBuilder``.
"""

from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.workflow import Workflow

__all__ = ["Step", "TaskCall", "Workflow", "WorkflowBuilder", "task"]
