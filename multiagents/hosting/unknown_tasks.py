"""What does a worker do with a message whose task it lacks?

Celery finds a message's task in a table.  It drops a message without an entry, with twenty lines of
log and a stored failure.  `Strategies` is that table, with an entry for every name.  It
acknowledges a command of the engine and gives it back to its outbox (`handback`).  Any other
message is dropped as by Celery.

For Celery 5.7, whose consumer calls the table's entry as ``strategy(message, body, ack, …)``.
Nothing here may raise for the content of a message: that would end the worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import bootsteps

from multiagents.engine.handback import Foreign, foreign_of

Strategy = Callable[..., Any]
Take = Callable[[Foreign], None]
"""Returns at once: the main process takes messages."""

_log = logging.getLogger(__name__)


class Strategies(dict[str, Strategy]):
    """A consumer's table of tasks, with an entry for those that this worker lacks."""

    def __init__(self, consumer: Any, take: Take) -> None:
        super().__init__(consumer.strategies)
        self._consumer = consumer
        self._take = take

    def __missing__(self, name: str) -> Strategy:
        def strategy(message: Any, body: Any, ack: Any, *_: Any) -> None:
            found = foreign_of(name, message.headers, self._queue_of(message))
            if found is None:
                self._drop(name, message)
                return
            ack(_log, self._consumer.connection_errors)
            self._take(found)

        return strategy

    def _queue_of(self, message: Any) -> Any:
        """The name of a message's queue; a team's queues may have other routing keys."""
        key = (message.delivery_info or {}).get("routing_key")
        queues = self._consumer.app.amqp.queues.consume_from
        if key in queues:
            return key
        return next((name for name, each in queues.items() if each.routing_key == key), key)

    def _drop(self, name: str, message: Any) -> None:
        try:
            raise KeyError(name)
        except KeyError as error:  # Celery logs it with its traceback
            self._consumer.on_unknown_task(None, message, error)


def step_for(take: Take) -> type:
    """A bootstep for an app's consumers."""

    class StrangersStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
        """Gives a consumer its table, when Celery has filled in the tasks."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            if not isinstance(consumer.strategies, Strategies):  # else it has only reconnected
                consumer.strategies = Strategies(consumer, take)

        def stop(self, consumer: Any) -> None:
            """Nothing: the table goes with its consumer."""

    return StrangersStep
