"""Does a user's module have the name of a package, so that one hides the other?

Python searches the working folder first.  So ``import redis`` in any library gives a ``redis.py``
of that folder; or, if redis was imported before, Python never reads the file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

OWN = "multiagents"
_NAME = re.compile(r"[\w.-]+")
"""The name in a requirement: ``redis`` in ``redis>=5; extra == 'x'``."""


def named(name: str, folder: Path) -> str | None:
    """A message if a module of the folder has the name of a needed package; else None.

    A package of the user's own project may also be installed: it hides only itself.
    """
    top = name.partition(".")[0]
    file = _file(top, folder)
    if file is None or not _is_elsewhere(top, folder):
        return None
    hides = _is_taken(top, file) if top in sys.stdlib_module_names else top in _needed()
    return _said(file, top) if hides else None


def hiding(error: BaseException, names: Iterable[str], folder: Path) -> str | None:
    """A message if a module of the folder hides another and is related to the error; else None."""
    for name in names:
        file = _file(name, folder)
        if file and _concerns(file, name, error) and _is_elsewhere(name, folder):
            return _said(file, name)
    return None


def _is_taken(name: str, file: Path) -> bool:
    """Whether Python's own module was already imported, so that the file would not be read."""
    if name not in sys.modules:
        return False
    return os.path.realpath(getattr(sys.modules[name], "__file__", None) or "") != str(
        file.resolve()
    )


def _file(name: str, folder: Path) -> Path | None:
    """The file of a module in the folder; None if there is none."""
    files = folder / f"{name}.py", folder / name / "__init__.py"
    try:
        return next((file for file in files if file.is_file()), None)
    except (OSError, ValueError):  # not a file name
        return None


def _said(file: Path, name: str) -> str:
    kind = "Python module" if name in sys.stdlib_module_names else "the package"
    return f"your {file.name if file.stem == name else name} hides {kind} {name!r}; rename it"


def _concerns(file: Path, name: str, error: BaseException) -> bool:
    missed = (getattr(error, "name", None) or "").partition(".")[0]
    return missed == name or f"module {name!r}" in str(error) or _is_passed(str(file), error)


def _is_passed(file: str, error: BaseException) -> bool:
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            return True
        step = step.tb_next
    return False


def _is_elsewhere(name: str, folder: Path) -> bool:
    if name in sys.stdlib_module_names or name == OWN:
        return True
    paths = [path for path in sys.path if Path(path).resolve() != folder]
    return PathFinder.find_spec(name, paths) is not None


def _needed() -> set[str]:
    """The modules of multiagents, of Celery, and of their requirements."""
    lines = [line for name in (OWN, "celery") for line in _requirements(name)]
    wanted = {"celery", *(_plain(found[0]) for line in lines if (found := _NAME.match(line)))}
    packages = metadata.packages_distributions().items()
    return {OWN, *(module for module, owners in packages if wanted & set(map(_plain, owners)))}


def _requirements(name: str) -> list[str]:
    try:
        return [line for line in metadata.requires(name) or () if "extra ==" not in line]
    except metadata.PackageNotFoundError:  # it is on the path, but not installed
        return []


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
