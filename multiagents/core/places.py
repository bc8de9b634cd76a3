"""Which line of the user's code is meant?

A `Place` is shown as ``shop.py:12``, in messages that require a user's action.  The user's code is
neither this package's, nor installed, nor Python's own.  Without a line of it, an installed
package counts: the one that the engine called, since the user's functions may be installed, too.
"""

from __future__ import annotations

import functools
import inspect
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_PATHS = sysconfig.get_paths()
_LIBRARIES = tuple({_PATHS["purelib"] + os.sep, _PATHS["platlib"] + os.sep})
_PYTHON = tuple({_PATHS["stdlib"] + os.sep, _PATHS["platstdlib"] + os.sep})
_SCRIPTS = _PATHS["scripts"] + os.sep
"""Installed commands, such as ``celery``."""
_BETWEEN = frozenset(
    {"amqp", "billiard", "celery", "dspy", "eventlet", "gevent", "kombu", "litellm", "pydantic"}
    | {"redis", "vine"}
)
"""Installed packages through which the engine calls the user's functions."""
MODULE = "<module>"
"""Python's name for the code of a module."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{shown_path(self.file)}:{self.line}"


def shown_path(path: str) -> str:
    """A path for messages: relative if it is below the working folder."""
    try:
        below = os.path.relpath(path)
    except (ValueError, OSError):  # another drive, or a deleted working folder
        return path
    return path if below.startswith(os.pardir) else below


def code_of(function: Any) -> CodeType | None:
    """The code behind a callable: partials, methods, objects and wrappers included."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function) and not isinstance(function, type):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - for its code
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def defined(function: Any) -> Place | None:
    """Where a callable is defined; None if it is not written in Python."""
    code = code_of(function)
    return None if code is None else Place(code.co_filename, code.co_firstlineno)


def in_brackets(place: Place | None) -> str:
    """The place for a message, after a name: `` (shop.py:12)``; empty if it is not known."""
    return "" if place is None else f" ({place})"


def calling() -> FrameType | None:
    """The frame of the user's code that called this package; None if there is none."""
    frame = inspect.currentframe()
    return _users(_outwards(frame))


def called_at() -> Place | None:
    """The line of the user's code that called this package."""
    return at(calling())


def at(frame: FrameType | None) -> Place | None:
    """The line at which a frame is."""
    return None if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


def raised_at(error: BaseException) -> Place | None:
    """The innermost line of the user's code in an error's traceback."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return Place(error.filename, error.lineno)
    steps = list(_inwards(error.__traceback__))
    frame = _users(step.tb_frame for step in reversed(steps))
    step = next((step for step in reversed(steps) if step.tb_frame is frame), None)
    return None if step is None else Place(step.tb_frame.f_code.co_filename, step.tb_lineno)


def own_line(error: BaseException) -> str:
    """The innermost line of the user's code in an error's traceback; "" if unknown."""
    steps = _inwards(error.__traceback__)
    return _users_line([Place(step.tb_frame.f_code.co_filename, step.tb_lineno) for step in steps])


def standing_at(frame: FrameType | None) -> str:
    """The innermost line of the user's code that runs in a frame; "" if unknown."""
    places = [Place(each.f_code.co_filename, each.f_lineno) for each in _outwards(frame)]
    return _users_line(places[::-1])


def suspended_at(coroutine: Any) -> str:
    """The innermost ``await`` of the user's code at which a coroutine waits; "" if unknown."""
    places = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            places.append(Place(frame.f_code.co_filename, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return _users_line(places)


def _users_line(stack: Sequence[Place]) -> str:
    """The innermost line of the user's code in a stack, outermost call first; "" without one.

    If all code is installed, the package that the engine called first counts as the user's.
    """
    if users := [place for place in stack if is_users(place.file)]:
        return str(users[-1])
    calls = (n for n, place in enumerate(stack) if place.file.startswith(_PACKAGE))
    below = stack[next(calls, 0) :]
    packages = [_package_of(place.file) for place in below]
    called = next(filter(None, packages), "")
    lines = [str(each) for each, package in zip(below, packages, strict=True) if package == called]
    return lines[-1] if called else ""


def _package_of(path: str) -> str:
    """The installed package to which a file belongs; "" for every other file."""
    library = next(filter(path.startswith, _LIBRARIES), None)
    if library is None or path.startswith(_PACKAGE):
        return ""
    package = path.removeprefix(library).split(os.sep, 1)[0]
    return "" if package in _BETWEEN else package


def is_users(path: str) -> bool:
    """Whether a file is the user's code: neither this package's, nor installed, nor Python's."""
    installed = (_PACKAGE, *_LIBRARIES, *_PYTHON, _SCRIPTS)
    return os.path.isabs(path) and not path.startswith(installed)


def own(code: CodeType) -> bool:
    """Whether code is this package's."""
    return code.co_filename.startswith(_PACKAGE)


def imports(frame: FrameType | None) -> bool:
    """Whether a frame runs during the import of its module, or is that of a script itself."""
    return any(
        each.f_code.co_filename.startswith("<frozen importlib") for each in _outwards(frame)
    ) or (frame is not None and frame.f_code.co_name == MODULE)


def _users(frames: Iterable[FrameType]) -> FrameType | None:
    """The first frame of the user's code, or else of an installed library."""
    library = None
    for frame in frames:
        name = frame.f_code.co_filename
        if name.startswith((_PACKAGE, "<frozen ")):
            continue
        if not name.startswith((*_LIBRARIES, *_PYTHON)):
            return frame
        if library is None and name.startswith(_LIBRARIES):
            library = frame
    return library


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _inwards(step: TracebackType | None) -> Iterator[TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next
