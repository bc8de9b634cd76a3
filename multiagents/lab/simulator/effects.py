"""What becomes of the effects of a simulated process that are not Redis'?

Messages go to the broker; who waits for a saga's end is told target by target, as in Celery.
"""

from __future__ import annotations

from typing import Any

from multiagents.core.entries import Failure
from multiagents.core.states import SagaState
from multiagents.engine.messages import Publish
from multiagents.engine.queue_heads import QueueHead
from multiagents.lab.simulator.broker import SimulatedBroker
from multiagents.lab.simulator.world import Take, World
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.targets import Refusal, Told, targets_of

PICKY = "picky"
"""A task that Celery refuses to send."""


def carry_out(effect: Any, world: World, broker: SimulatedBroker) -> Any:
    """Carry out what is not Redis'."""
    match effect:
        case Take():
            return broker.take(world.now_ms)
        case Publish(messages):
            return broker.publish(messages)
        case QueueHead(queue):
            return broker.backlog(queue)
        case SagaOutcome(saga_id):
            world.ends[saga_id].append(effect)
            return _tell(effect, world)
    raise TypeError(f"the simulator does not know {effect!r}")


def _tell(effect: SagaOutcome, world: World) -> Told:
    """Tell the targets one by one, up to where the broker fails; the picky ones refuse."""
    parts: dict[str, tuple[str, ...]] = {}
    refused: list[Refusal] = []
    completed = effect.state == SagaState.COMPLETED
    for task_id, canvas in effect.waiting.items():
        settled = effect.settled.get(task_id, frozenset())
        for target in targets_of(canvas, completed=completed):
            if world.happens(world.faults.fail_before * 3, "delivery failed"):
                return Told(False, parts, tuple(refused))
            if target.name in settled:
                continue
            if target.signature["task"] == PICKY and world.is_picky:
                world.seen["target refused"] += 1
                refused.append(Refusal(task_id, target.name, Failure("TypeError", "injected")))
                continue
            parts[task_id] = (*parts.get(task_id, ()), target.name)
            world.canvases[effect.saga_id][f"{target.name} of {task_id}"].append(world.now_ms)
    if world.happens(world.faults.fail_before, "delivery failed"):
        return Told(False, parts, tuple(refused))
    world.told[effect.saga_id].update(effect.waiting)
    return Told(True, parts, tuple(refused))
