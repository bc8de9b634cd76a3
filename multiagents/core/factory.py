"""Where do programs written after the first documents import the framework from?

From here: ``from multiagents.core.factory import create_simple_framework``.  It only re-exports
`orchestrator.framework`, and is the one file of this room that imports from a higher room.
"""

from multiagents.orchestrator.framework import Framework, create_simple_framework

__all__ = ["Framework", "create_simple_framework"]
