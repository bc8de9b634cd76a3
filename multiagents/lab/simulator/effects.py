"""How are a simulated process's effects outside Redis performed?

Messages go to the broker.  A saga's outcome goes to its waiters target by target, as in Celery.
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
"""The name of a task that Celery refuses to send."""


def carry_out(effect: Any, world: World, broker: SimulatedBroker) -> Any:
    """Perform an effect outside Redis."""
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
    raise TypeError(f"the simulator cannot perform {effect!r}")


def _tell(effect: SagaOutcome, world: World) -> Told:
    """Deliver to the targets one by one until the broker fails; Celery refuses `PICKY`."""
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
