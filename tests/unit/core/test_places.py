"""Where in the user's code is a function, an object or an error?"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import pytest

from multiagents import WorkflowBuilder, monitor_performance
from multiagents.core.places import (
    Place,
    called_at,
    calling,
    defined,
    in_brackets,
    raised_at,
    shown_path,
)

FILE = str(Path(__file__))


class Called:
    def __call__(self) -> None: ...

    def method(self) -> None: ...


def plain() -> None: ...


LINE = plain.__code__.co_firstlineno


@pytest.mark.parametrize(
    "function",
    [
        plain,
        functools.partial(plain),
        functools.partial(functools.partial(plain)),
        monitor_performance(plain),
        functools.wraps(plain)(lambda: plain()),
    ],
)
def test_a_function_is_found_through_what_is_around_it(function: object) -> None:
    """The place is the wrapped function's, not that of its partial or wrapper."""
    assert defined(function) == Place(FILE, LINE)


def test_objects_methods_and_builtins() -> None:
    """An object's place is that of its ``__call__``; builtins have none."""
    call, method = Called.__call__.__code__, Called.method.__code__
    assert defined(Called()) == Place(FILE, call.co_firstlineno)
    assert defined(Called().method) == Place(FILE, method.co_firstlineno)
    assert defined(max) is None
    assert in_brackets(defined(max)) == ""
    assert in_brackets(Place("/x/y.py", 3)) == " (/x/y.py:3)"


def test_a_path_is_shown_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths below the working folder are relative, as one types them into an editor."""
    monkeypatch.chdir(tmp_path)
    assert shown_path(str(tmp_path / "me" / "shop.py")) == os.path.join("me", "shop.py")
    assert shown_path(str(tmp_path.parent / "shop.py")) == str(tmp_path.parent / "shop.py")


def test_the_caller_is_the_users_however_deep_the_package_is() -> None:
    """The search skips frames of this package and of Python."""
    frame = calling()
    assert frame is not None
    assert frame.f_code is test_the_caller_is_the_users_however_deep_the_package_is.__code__
    (place,) = map(lambda _: called_at(), [0])  # noqa: C417 - by way of a builtin
    assert place is not None
    assert place.file == FILE


def test_an_error_is_placed_in_the_users_own_line() -> None:
    """An error raised in a library has the place of the user's call."""

    def inner() -> None:
        json.loads("{")

    with pytest.raises(ValueError, match="Expecting") as raised:
        inner()
    assert raised_at(raised.value) == Place(FILE, inner.__code__.co_firstlineno + 1)
    with pytest.raises(ValueError, match=r"mistakes|invalid") as ours:
        WorkflowBuilder("places").build()
    place = raised_at(ours.value)
    assert place is not None
    assert place.file == FILE


def test_an_error_that_was_never_raised_has_no_place() -> None:
    """A syntax error has its own text's place instead."""
    assert raised_at(ValueError("x")) is None
    assert raised_at(SyntaxError("x", ("shop.py", 3, 1, "x"))) == Place("shop.py", 3)
