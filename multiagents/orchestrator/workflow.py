"""Where do the first documents say that a workflow is defined?

Here: ``from multiagents.orchestrator.workflow import WorkflowBuilder``.
"""

from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.workflow import Workflow

__all__ = ["Step", "TaskCall", "Workflow", "WorkflowBuilder", "task"]
