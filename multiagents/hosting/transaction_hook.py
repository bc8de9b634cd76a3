"""How does a start wait for the commit of a Django transaction?

A saga that starts inside a transaction may run before its rows exist, or although they are rolled
back.  Celery gives each task of a Django app `delay_on_commit` for that.  These are the same for
``start_saga``, whatever base class its app's tasks have.
"""

from __future__ import annotations

from collections.abc import Callable

from multiagents.core.exceptions import InvalidInput


def after_commit(name: str, action: Callable[[], object]) -> None:
    """Run ``action`` when the present transaction is committed; at once if there is none.

    ``name``: the method that was called.  Raises InvalidInput if Django is not installed.
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
