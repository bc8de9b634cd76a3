"""How does one module look in two versions, while a team replaces its workers?

RELEASE names this process's version. The new one has another function for ``price``, one more step
in ``order``, and that step's function.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from multiagents import WorkflowBuilder, worker
from tests.support.processes import wait_for

RELEASE = os.environ["RELEASE"]
GATE_S = 30.0


def _ran(context: Any) -> dict[str, Any]:
    """The version that ran a step, once the test opens its gate."""
    folder = Path(os.environ["GATES"])
    with (folder / "ran").open("a") as file:
        file.write(f"{context.transaction_id} {context.step} {RELEASE}\n")
    gate = context.get("gate")
    if gate and context.step == "reserve":
        wait_for((folder / gate).exists, GATE_S, f"gate {gate}")
    return {context.step: RELEASE}


@worker("rel_reserve")
def reserve(context: Any) -> dict[str, Any]:
    return _ran(context)


@worker("rel_price")
def price(context: Any) -> dict[str, Any]:
    return {**_ran(context), "price": 1 if RELEASE == "old" else 2}


order = WorkflowBuilder("rel_order").add_step("reserve", "rel_reserve")
order.add_step("price", "rel_price")

if RELEASE == "old":

    @worker("rel_label")
    def label(context: Any) -> dict[str, Any]:
        """The old workflow's last step, which the new version lacks."""
        return _ran(context)

    order.add_step("label", "rel_label")
else:

    @worker("rel_insure")
    def insure(context: Any) -> dict[str, Any]:
        """The new workflow's additional step."""
        return _ran(context)

    order.add_step("insure", "rel_insure")

order.build().register()
