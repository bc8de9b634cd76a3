"""Which language model answers in `dev` and `demo`?

The model of ``MULTIAGENTS_LM``; without one a stub on this machine, and the output says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from multiagents.core.settings import Settings

STUB = "no language model is set (MULTIAGENTS_LM): a stub on this machine makes up the answers"


def model_environment(
    stack: ExitStack, settings: Settings, answers: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The variables for a worker's environment; starts the stub until the stack ends, if needed."""
    if settings.lm:
        return {}
    from multiagents.testing.stub_lm import StubProvider

    provider = stack.enter_context(StubProvider())
    if answers:
        provider.script(answers)
    return provider.environment()
