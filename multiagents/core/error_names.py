"""What is the class of an error, as text that every process understands?

An attempt's failure crosses processes as data.  So a decision identifies an error by the names of
its class and base classes, nearest first.  Python's and this package's exceptions have bare names
(``KeyError``, ``StepTimeout``), others a dotted name with the defining module.  This module also
decides which errors are retried if no policy names them (rules 2 and 5).  The process that caught
the error and `decide` both use it.

No Redis, no clock; `class_named` imports the module in a name.
"""

from __future__ import annotations

import builtins
import re
import sys
from bdb import BdbQuit
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from multiagents.core import exceptions
from multiagents.core.exceptions import (
    InvalidInput,
    InvalidResult,
    NonRetryableError,
    WorkerExecutionError,
)
from multiagents.core.json_text import encodable
from multiagents.core.near import did_you_mean, nearest
from multiagents.core.states import Kind

ErrorClass = type[BaseException]

PROGRAMMERS_OWN: tuple[ErrorClass, ...] = (
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
)
"""The errors of mistakes in the code, with all subclasses.

All subclasses count.  Of about 60 in 130 packages (HTTP clients, drivers, SDKs), all but one mean a
mistake.  `requests.exceptions.StreamConsumedError` does, although it is also an OSError.  The one
is `referencing.exceptions.Unretrievable`, a KeyError: a policy can name it.
"""

REFUSED: tuple[ErrorClass, ...] = (ValueError, NonRetryableError, InvalidResult)
"""Errors that the same input causes again.  pydantic's ValidationError, UnicodeError and the
JSONDecodeError of `json` and of `requests` are ValueErrors, too.

A step is not retried after them.  A compensation is: a gateway's HTML page, read as JSON, also
gives a ValueError, and is temporary.
"""

UNDO_TRIES_OF_PROGRAMMERS = 3
"""More retries would not correct the code; one or two may reach a worker with corrected code."""


def names_of(error: BaseException) -> tuple[str, ...]:
    """The names of an error's class and of its base classes, nearest first."""
    return names_of_class(type(error))


def names_of_class(cls: ErrorClass) -> tuple[str, ...]:
    """The names of a class and of its base classes, without `BaseException`, nearest first."""
    found = (each for each in cls.__mro__ if issubclass(each, BaseException))
    return tuple(name_of(each) for each in found if each is not BaseException)


def name_of(cls: ErrorClass) -> str:
    """The name of a class in failures and policies."""
    if cls.__module__ in (builtins.__name__, exceptions.__name__):
        return cls.__qualname__
    return encodable(f"{_importable(cls.__module__)}.{cls.__qualname__}")


def class_named(name: str) -> ErrorClass:
    """The exception class of a name, by its module or by a module that re-exports it.

    Raises InvalidInput.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not the name of an exception class; {_EXPECTED}")
    if "." not in name:
        return _bare(name)
    try:
        found = resolve_name(name)
    except Exception as error:  # an import runs the module's code
        why = str(error) or type(error).__name__
        raise InvalidInput(f"{name!r} is not an exception class: {why}") from error
    return _checked(name, found)


def read_names(given: object) -> tuple[tuple[str, ...], list[str]]:
    """The names of classes, given as classes or names, one or a list; and the mistakes."""
    names: dict[str, None] = {}
    mistakes: list[str] = []
    listed = given if isinstance(given, list | tuple | set | frozenset) else [given]
    for each in listed:
        try:
            names[name_of(_class_of(each))] = None
        except InvalidInput as error:
            mistakes.append(str(error))
    return tuple(names), mistakes


def read_policy(given: Mapping[Any, Any], keys: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A policy's fields with the names of its classes, and the mistakes in them.

    ``keys``: the fields that name errors; a class may be in only one of them.
    """
    # YAML 1.1 reads a bare `on` as true; the package's own reader does not, others do.
    fields = {"on" if key is True else key: value for key, value in given.items()}
    mistakes: list[str] = []
    seen: dict[str, str] = {}
    for key in keys:
        if fields.get(key) is None:
            fields.pop(key, None)
            continue
        names, wrong = read_names(fields[key])
        mistakes += [f"{key}: {mistake}" for mistake in wrong]
        for name in [name for name in names if seen.setdefault(name, key) != key]:
            mistakes.append(f"{key}: {name!r} is also in {seen[name]}: keep one")
        fields[key] = tuple(name for name in names if seen[name] == key)
    return fields, mistakes


def is_programmers_own(names: Sequence[str]) -> bool:
    """Whether an error of these classes means a mistake in the code."""
    return _ASKS_FOR_MORE not in names and not _PROGRAMMERS_OWN.isdisjoint(names)


def is_repeated(names: Sequence[str], kind: Kind) -> bool:
    """Whether an attempt is retried by default after an error of these classes."""
    if _ASKS_FOR_MORE in names:
        return True
    if kind is Kind.UNDO:
        return _GIVES_UP.isdisjoint(names)
    return _NOT_REPEATED.isdisjoint(names)


def _class_of(given: object) -> ErrorClass:
    if isinstance(given, str):
        return class_named(given)
    return _checked(getattr(given, "__name__", None) or repr(given), given)


def _bare(name: str) -> ErrorClass:
    found = getattr(builtins, name, None) or getattr(exceptions, name, None)
    if found is None:
        told = did_you_mean(nearest(name, _BARE), _EXPECTED)
        raise InvalidInput(f"{name!r} is not an exception class; {told}")
    return _checked(name, found)


def _checked(name: str, found: Any) -> ErrorClass:
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    raise InvalidInput(f"{name!r} is not a subclass of Exception; {_EXPECTED}")


def _importable(module: str) -> str:
    """The name of a module in other processes; for a script, its file's name."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return Path(file).stem if file else module


_EXPECTED = "expected one such as KeyError or requests.ConnectionError"
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_BARE = [
    name
    for module in (builtins, exceptions)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Exception)
]
_ASKS_FOR_MORE = name_of(WorkerExecutionError)
_PROGRAMMERS_OWN = frozenset(map(name_of, PROGRAMMERS_OWN))
_GIVES_UP = frozenset(map(name_of, (NonRetryableError, BdbQuit)))
"""A compensation that raises one of these has given up, or stopped in a debugger."""
_NOT_REPEATED = _PROGRAMMERS_OWN | _GIVES_UP | frozenset(map(name_of, REFUSED))
