"""Under which name does ``celery -A`` find this program's app that hosts sagas?

Advice such as "start a worker" names that app.  Only the rooms that use Celery have the app itself;
they note its name here.
"""

from __future__ import annotations

from collections.abc import Callable

_name_of_app: Callable[[], str] | None = None


def note_app(name_of: Callable[[], str]) -> None:
    """Note an attached app.  ``name_of`` is called later, after the import of the app's module."""
    global _name_of_app
    _name_of_app = name_of


def app_name() -> str | None:
    """The name after ``-A``, empty if it is not known; None if no app is attached."""
    return None if _name_of_app is None else _name_of_app()
