"""One module in two versions, as it is while a team replaces its workers.

RELEASE says which one this process has.  The new one has another function for ``price``, a step
more in ``order``, and the function for it.
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
    """Which version has done a step, once the test lets it."""
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
        """Only the old workflow's last step; the new version has dropped it."""
        return _ran(context)

    order.add_step("label", "rel_label")
else:

    @worker("rel_insure")
    def insure(context: Any) -> dict[str, Any]:
        """The new workflow's own step."""
        return _ran(context)

    order.add_step("insure", "rel_insure")

order.build().register()
