"""Which of the program's own Celery apps hosts sagas, and what is its name for ``celery -A``?

The package's own apps do not count.  Connects to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import Celery, _state

from multiagents.core import program
from multiagents.core.names import START_SAGA
from multiagents.core.places import shown_path
from multiagents.core.settings import Settings

_OTHERS = ("celery", "multiagents", "__main__")
"""Packages that hold apps but make none of a team's; and a name that ``-A`` does not find."""


@dataclass(frozen=True, slots=True)
class Attached:
    """An attached app."""

    app: Celery
    settings: Settings


_latest: Attached | None = None


def note(app: Celery, settings: Settings) -> None:
    """Remember the program's app."""
    global _latest
    _latest = Attached(app, settings)
    program.note_app(lambda: name_of(app))


def latest() -> Attached | None:
    """The app that was attached last; None if the program has none of its own."""
    return _latest


def is_attached(app: Celery) -> bool:
    """Whether the app is attached."""
    return START_SAGA in app.tasks


def forgotten() -> Celery | None:
    """The program's app, if the program has one and has attached none."""
    app: Celery | None = _state.default_app
    return app if _latest is None and app is not None and _module_of(app) else None


def forgotten_advice() -> str:
    """The fix for a `forgotten` app, as a clause; empty if there is none."""
    app = forgotten()
    return f", or, if app {app.main!r} has it, {how_to_attach(app)}" if app else ""


def how_to_attach(app: Celery) -> str:
    """The call that attaches an app, and the file where it belongs."""
    place = f" ({file})" if (file := file_of(app)) else ""
    return f"call multiagents.attach(app) where it is made{place}"


def name_of(app: Celery) -> str:
    """Its name after ``celery -A``; empty if that is not known."""
    module = _module_of(app)
    if module:  # Celery itself looks into the module `celery` of a package
        return module.removesuffix(".celery")
    return "" if app.main in (None, "__main__") else str(app.main)


def file_of(app: Celery) -> str:
    """The file that makes the app, as shown to users; empty if that is not known."""
    path = getattr(sys.modules.get(_module_of(app)), "__file__", None)
    return shown_path(path) if path else ""


def _module_of(app: Celery) -> str:
    """The module that makes an app; if a function makes it, a module that holds it."""
    holding = dict(_holding(app))
    makes = {id(type(app)), id(sys.modules["celery"])}
    making = [
        name for name, held in holding.items() if makes & {id(value) for value in held.values()}
    ]
    return next(iter(making or holding), "")


def _holding(app: Celery) -> Iterator[tuple[str, dict[str, Any]]]:
    """Modules with a variable for the app, in the order of their imports."""
    for name, module in list(sys.modules.items()):
        held = dict(getattr(module, "__dict__", None) or {})
        if name.partition(".")[0] not in _OTHERS and any(each is app for each in held.values()):
            yield name, held
