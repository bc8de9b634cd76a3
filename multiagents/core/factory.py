"""Where do the first documents say that a framework is made?

Here: ``from multiagents.core.factory import create_simple_framework``.  It only passes on what
`framework` makes, and is the one file of this room that looks up.
"""

from multiagents.orchestrator.framework import Framework, create_simple_framework

__all__ = ["Framework", "create_simple_framework"]
