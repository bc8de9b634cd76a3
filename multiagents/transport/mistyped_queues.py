"""How does a worker consume its other queues while the key of one is no list?

Redis answers a BRPOP or LLEN of such a key with WRONGTYPE.  To Celery that is a fatal error: the
worker ends, and its other queues stand still.  Here the queue is skipped, and checked again, until
its key is a list or deleted.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import structlog
from kombu.transport import redis
from redis.exceptions import ResponseError

log = structlog.get_logger(__name__)

LOOK_S = 2.0
"""The time between two checks of a skipped queue."""
LISTS = ("list", "none")
WRONG = "WRONGTYPE"


class TypedChannel(redis.Channel):
    """kombu's channel, which skips queues whose key is no list."""

    _mistyped: frozenset[str] = frozenset()
    _look_at = 0.0

    @property
    def active_queues(self) -> list[str]:
        """The queues from which messages are fetched now."""
        if self._mistyped and monotonic() >= self._look_at:
            self._look()
        found: list[str] = super().active_queues
        left_out = self._mistyped
        return [queue for queue in found if queue not in left_out] if left_out else found

    def _brpop_read(self, **options: Any) -> Any:
        inherited: Any = super()
        try:
            return inherited._brpop_read(**options)
        except ResponseError as error:
            if WRONG not in str(error):
                raise
            self._look()
            return True

    def _size(self, queue: str) -> int:
        inherited: Any = super()
        try:
            return int(inherited._size(queue))
        except ResponseError as error:
            if WRONG not in str(error):
                raise
            return 0

    def _look(self) -> None:
        """Find the queues whose key is no list; log each that is skipped or consumed again."""
        queues: list[str] = super().active_queues
        found = frozenset(queue for queue in queues if not self._is_list(queue))
        for queue in sorted(found - self._mistyped):
            log.error(
                "the queue is not consumed: its key is not a list",
                queue=queue,
                fix="move the key, or give the steps another queue; this worker then goes on",
            )
        for queue in sorted(self._mistyped - found):
            log.info("the queue is consumed again", queue=queue)
        self._mistyped, self._look_at = found, monotonic() + LOOK_S
        self._queue_cycle.update([queue for queue in queues if queue not in found])

    def _is_list(self, queue: str) -> bool:
        own: Any = self
        with own.conn_or_acquire() as client:
            keys = {own._q_for_pri(queue, priority) for priority in own.priority_steps}
            types = [client.type(key) for key in keys]
        return all((each.decode() if isinstance(each, bytes) else each) in LISTS for each in types)
