"""Which language model answers in `dev` and `demo`?

The one of ``MULTIAGENTS_LM``; without one a stub on this machine, and that is said plainly.
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
    """What a worker's environment needs; starts the stub, until the stack ends, if it is used."""
    if settings.lm:
        return {}
    from multiagents.testing.stub_lm import StubProvider

    provider = stack.enter_context(StubProvider())
    if answers:
        provider.script(answers)
    return provider.environment()
