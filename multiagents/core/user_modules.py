"""Which of the user's modules does a process import, and what is wrong with one that it cannot?

Modules are found as Celery finds them: in the working folder, then wherever Python looks.  What is
wrong is said in one line, with the user's file and line where code of theirs has failed.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from multiagents.core import hidden_modules
from multiagents.core.exceptions import InvalidInput, MultiAgentsError, NoServer
from multiagents.core.near import did_you_mean, nearest
from multiagents.core.places import raised_at
from multiagents.core.texts import joined, some_of

IMPORTS = "MULTIAGENTS_IMPORTS"
SHOWN = 5
"""Modules of a folder that a message names."""
LEVELS = 3
"""So deep, and so high, other folders are looked into for a module that is not here."""
MOST_FOLDERS = 500
"""Looked into at most; a home directory has many more."""
_SKIPPED = re.compile(r"\.|_|node_modules$|site-packages$|dist$|build$|venv$|env$")
_FILE = re.compile(r"[/\\]|\.py$")


def load(names: Sequence[str], *, of: str = IMPORTS) -> None:
    """Import these modules; ``of``: what names them.

    Raises InvalidInput for one that cannot be imported, and NoServer as it is: a module may ask a
    server that is not there yet.
    """
    with _here():
        for name in names:
            _load(name, of)


def _load(name: str, of: str) -> None:
    if _FILE.search(name):
        raise InvalidInput(f"{of}: {_missing(name)}")
    if flaw := hidden_modules.named(name, Path.cwd()):
        raise InvalidInput(f"{of}: {flaw}")
    try:
        importlib.import_module(name)
    except NoServer:
        raise
    except ModuleNotFoundError as error:
        if not _is_itself(name, error):
            raise InvalidInput(f"{of}: {_broken(name, error)}") from error
        raise InvalidInput(f"{of}: {_missing(name)}") from error
    except (Exception, SystemExit) as error:
        if isinstance(error, (TypeError, ValueError)) and raised_at(error) is None:
            raise InvalidInput(f"{of}: {_missing(name)}") from error  # no name of a module
        raise InvalidInput(f"{of}: {_broken(name, error)}") from error


@contextmanager
def _here() -> Iterator[None]:
    """Python looks into the working folder first, as `celery` has it while it imports."""
    folder = os.getcwd()
    if folder in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _is_itself(name: str, error: ModuleNotFoundError) -> bool:
    """Whether the module that is missing is the one that was named, and not one that it imports."""
    missing = error.name or ""
    return name == missing or name.startswith(f"{missing}.")


def _broken(name: str, error: BaseException) -> str:
    place = raised_at(error)
    where = f"{place}: " if place else ""
    if isinstance(error, SystemExit):
        return (
            f"module {name!r} ends the process at its import ({where}SystemExit); put what runs it"
            ' under `if __name__ == "__main__":`'
        )
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError):  # its text repeats file and line
        text = error.msg
    if isinstance(error, MultiAgentsError):  # which may name the place itself
        where = "" if place and str(place) in text else where
        return f"module {name!r} cannot be imported: {where}{text}"
    why = f"{type(error).__name__}: {text}" if text else type(error).__name__
    folder = Path.cwd()
    advice = f"see all of it with `python -c 'import {name}'`"
    advice = hidden_modules.hiding(error, _names(folder), folder) or advice
    return joined(f"module {name!r} cannot be imported: {where}{why}", advice)


def _missing(name: str) -> str:
    folder = Path.cwd()
    return joined(f"no module {name!r} in {folder}", _advice(name, folder))


def _advice(name: str, folder: Path) -> str:
    if not _FILE.search(name) and re.search(r"[\s;:]", name):
        return "modules are separated by commas"
    path = Path(name).resolve()
    if path.is_file() and not path.is_relative_to(folder):
        return _go_to(path.parent, path.stem)
    meant = _as_module(str(path.relative_to(folder)) if path.is_file() else name)
    if meant != name and _is_in(folder, meant):
        return did_you_mean(meant)
    for other in _elsewhere(folder):
        if _is_in(other, meant):
            return _go_to(other, meant)
    known = _modules(folder, meant)
    # A prefix is what a tail that was cut off leaves; a difference of case is a typo too.
    if close := nearest(meant.lower(), {each.lower(): each for each in known}):
        return did_you_mean(next(each for each in known if each.lower() == close))
    return (
        f"modules here: {some_of(known, SHOWN)}" if known else "there is no module in this folder"
    )


def _go_to(folder: Path, module: str) -> str:
    """As the shell would be told it from here."""
    way = os.path.relpath(folder)
    return f"there is {module!r} in {way}: `cd {way}` first, and name it {module!r}"


def _as_module(name: str) -> str:
    """The name of the module that a path of a file stands for."""
    path = name.removesuffix(".py").replace("\\", "/")
    return ".".join(part for part in path.split("/") if part not in ("", "."))


def _is_in(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    try:
        return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
    except (OSError, ValueError):  # no name for a file
        return False


def _modules(folder: Path, meant: str) -> list[str]:
    """What could be meant in a folder: its modules, and those of the package that is named."""
    package = meant.rpartition(".")[0]
    found = _names(folder)
    if package:
        inner = folder.joinpath(*package.split("."))
        found += [f"{package}.{name}" for name in _names(inner)]
    return found


def _names(folder: Path) -> list[str]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    files = [p.stem for p in paths if p.suffix == ".py" and not p.name.startswith(("_", "."))]
    packages = [p.name for p in paths if (p / "__init__.py").is_file()]
    return files + packages


def _elsewhere(folder: Path) -> Iterator[Path]:
    """Folders near this one: those in it, then those that it is in."""
    waiting = deque([(folder, 0)])
    for _ in range(MOST_FOLDERS):
        if not waiting:
            break
        each, depth = waiting.popleft()
        if depth:
            yield each
        if depth < LEVELS:
            waiting.extend((inner, depth + 1) for inner in _folders(each))
    yield from list(folder.parents)[:LEVELS]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not _SKIPPED.match(p.name))
    except OSError:
        return []
