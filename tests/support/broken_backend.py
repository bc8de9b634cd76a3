"""Which result backend raises on demand?

It raises while a file says so, and only it can classify its errors.
"""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend

from tests.support.kill_workers import folder

BROKEN = "broken"
"""The file in KILL_DIR."""


class BrokenBackend(RedisBackend):  # type: ignore[misc]  # celery has no types
    """Celery's Redis backend with a fault on demand."""

    def _store_result(self, *args: Any, **kwargs: Any) -> Any:
        if (folder() / BROKEN).exists():
            raise RuntimeError("the table of results is gone")
        return super()._store_result(*args, **kwargs)
