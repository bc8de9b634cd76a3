"""Which workflow does this worker module forget to register?"""

from __future__ import annotations

from typing import Any

import structlog

from multiagents import WorkflowBuilder, worker


@worker("forgotten.say")
def say(context: Any) -> dict[str, Any]:
    structlog.get_logger("shop").warning("said in a step", sku="A1")
    return {"said": True}


said = WorkflowBuilder("forgotten_said").add_step("say", "forgotten.say").build().register()
hello = WorkflowBuilder("forgotten_hello").add_step("say", "forgotten.say").build()
