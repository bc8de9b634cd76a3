"""How does one script store a saga's outcome and mark it as delivered?

Celery's results may be on the server that holds the state.  Then the script that settles a saga's
end stores them too, as Celery's Redis backend would.  That is one round trip, not three.  `Answers`
writes
the value that `AsyncResult` reads.  It declines if there is more to do (a failure, links, a chord,
another backend), and the outcome goes through Celery.

For Celery 5.7; `tests/flows/test_answers.py` compares it with what the backend stores.
"""

from __future__ import annotations

from datetime import datetime

from celery import Celery, states
from celery.backends.redis import RedisBackend, SentinelBackend

from multiagents.core.settings import Settings
from multiagents.core.states import SagaState
from multiagents.saga.outcome import SagaOutcome
from multiagents.storage.commit import StoredResult
from multiagents.transport.direct_publish import same_server


class Answers:
    """Writes outcomes for one app."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._possible: bool | None = None

    def __call__(self, end: SagaOutcome) -> list[StoredResult] | None:
        """The results to store, for each waiting task id; None if Celery itself must."""
        if end.state != SagaState.COMPLETED or any(end.waiting.values()):
            return None
        if self._possible is None:
            self._possible = self._is_possible()
        if not self._possible:
            return None
        return [self._answer(task_id, end) for task_id in end.waiting]

    def _is_possible(self) -> bool:
        conf = self._app.conf
        return (
            type(self._app.backend) in (RedisBackend, SentinelBackend)
            and not self._settings.state_urls
            and same_server(
                self._settings,
                conf.result_backend,
                conf.result_backend_transport_options,
                conf.redis_backend_use_ssl,
            )
            and conf.result_serializer == "json"
            and not conf.result_extended
            and not conf.result_compression
        )

    def _answer(self, task_id: str, end: SagaOutcome) -> StoredResult:
        backend = self._app.backend
        meta = {
            "status": states.SUCCESS,
            "result": backend.encode_result(end.result, states.SUCCESS),
            "traceback": None,
            "children": [],
            "date_done": datetime.now(self._app.timezone).isoformat(),
            "task_id": task_id,
        }
        key = backend.get_key_for_task(task_id)
        return StoredResult(key, backend.encode(meta), int(backend.expires or 0))
