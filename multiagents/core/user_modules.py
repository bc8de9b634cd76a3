"""Which of the user's modules does a process import, and why does an import fail?

Modules are searched as in Celery: in the working folder, then on Python's path.  An error is one
line, with the file and line of the user's code that failed.
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
"""The levels of subfolders and parent folders that are searched for a missing module."""
MOST_FOLDERS = 500
"""The maximum number of searched folders; a home directory has many more."""
_SKIPPED = re.compile(r"\.|_|node_modules$|site-packages$|dist$|build$|venv$|env$")
_FILE = re.compile(r"[/\\]|\.py$")


def load(names: Sequence[str], *, of: str = IMPORTS) -> None:
    """Import these modules; ``of``: the source of their names.

    Raises InvalidInput if one cannot be imported.  NoServer passes unchanged: a module may call a
    server that has not started yet.
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
            raise InvalidInput(f"{of}: {_missing(name)}") from error  # not a module name
        raise InvalidInput(f"{of}: {_broken(name, error)}") from error


@contextmanager
def _here() -> Iterator[None]:
    """Put the working folder first on Python's path, as `celery` does during its imports."""
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
    """Whether the missing module is the named one, not one that it imports."""
    missing = error.name or ""
    return name == missing or name.startswith(f"{missing}.")


def _broken(name: str, error: BaseException) -> str:
    place = raised_at(error)
    where = f"{place}: " if place else ""
    if isinstance(error, SystemExit):
        return (
            f"module {name!r} ends the process at its import ({where}SystemExit); move that code"
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
    # A difference of case is a typo, too.
    if close := nearest(meant.lower(), {each.lower(): each for each in known}):
        return did_you_mean(next(each for each in known if each.lower() == close))
    return (
        f"modules here: {some_of(known, SHOWN)}" if known else "there is no module in this folder"
    )


def _go_to(folder: Path, module: str) -> str:
    """Advice with a command for the shell in the working folder."""
    way = os.path.relpath(folder)
    return f"there is {module!r} in {way}: `cd {way}` first, and name it {module!r}"


def _as_module(name: str) -> str:
    """The module name for the path of a file."""
    path = name.removesuffix(".py").replace("\\", "/")
    return ".".join(part for part in path.split("/") if part not in ("", "."))


def _is_in(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    try:
        return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
    except (OSError, ValueError):  # not a file name
        return False


def _modules(folder: Path, meant: str) -> list[str]:
    """Candidates for a name in a folder: its modules, and those of the named package."""
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
    """Folders near this one: its subfolders, then its parents."""
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
