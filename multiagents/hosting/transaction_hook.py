"""How does a start wait for the commit of a Django transaction?

A saga that is started inside a transaction may begin before the rows are there, or go on although
they never come.  Celery gives each task of a Django app `delay_on_commit` for that; these are the
same for ``start_saga``, whichever base class its app's tasks have.
"""

from __future__ import annotations

from collections.abc import Callable

from multiagents.core.exceptions import InvalidInput


def after_commit(name: str, action: Callable[[], object]) -> None:
    """Do it once the present transaction is committed; at once where there is none.

    ``name``: what was called.  Raises InvalidInput where Django is not installed.
    """
    try:
        from django.db import transaction
    except ImportError:
        raise InvalidInput(
            f"start_saga.{name} waits for the commit of a Django transaction, and Django is not"
            f" installed: call start_saga.{name.removesuffix('_on_commit')} once your own is"
            " committed"
        ) from None
    transaction.on_commit(action)
