"""By which name does ``celery -A`` find the app of this program that hosts sagas?

Advice such as "start a worker" names that app.  The app itself is known to the rooms that know
Celery; they note its name here.
"""

from __future__ import annotations

from collections.abc import Callable

_name_of_app: Callable[[], str] | None = None


def note_app(name_of: Callable[[], str]) -> None:
    """The program has attached an app.  ``name_of`` is asked late: its module is still running."""
    global _name_of_app
    _name_of_app = name_of


def app_name() -> str | None:
    """The name after ``-A``, empty if it is not known; None if no app is attached."""
    return None if _name_of_app is None else _name_of_app()
