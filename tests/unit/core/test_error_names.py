"""Which names does an error have, and which errors does a name match?"""

from __future__ import annotations

import json
import subprocess
import sys
from bdb import BdbQuit
from pathlib import Path
from typing import Any

import pydantic
import pytest

from multiagents.core.error_names import class_named, name_of, names_of, read_names
from multiagents.core.exceptions import InvalidInput, StepTimeout


class Declined(LookupError):
    """An error from a user's own module."""


def test_an_error_is_known_by_its_classes_nearest_first() -> None:
    """Python's and our errors have bare names; others carry the module that defines them."""
    assert names_of(Declined()) == (f"{__name__}.Declined", "LookupError", "Exception")
    assert names_of(StepTimeout()) == (
        "StepTimeout",
        "MultiAgentsError",
        "TimeoutError",
        "OSError",
        "Exception",
    )


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("KeyError", KeyError),
        ("IOError", OSError),
        ("StepTimeout", StepTimeout),
        ("multiagents.StepTimeout", StepTimeout),
        ("json.JSONDecodeError", json.JSONDecodeError),
        ("json.decoder.JSONDecodeError", json.JSONDecodeError),
        ("pydantic.ValidationError", pydantic.ValidationError),
        ("bdb.BdbQuit", BdbQuit),
        (f"{__name__}.Declined", Declined),
        ("Exception", Exception),
    ],
)
def test_a_class_is_found_by_each_name_that_it_has(name: str, cls: type[Exception]) -> None:
    """The library's public path and the defining module both work; one name is stored."""
    assert class_named(name) is cls
    assert read_names([name, cls]) == ((name_of(cls),), [])
    assert class_named(name_of(cls)) is cls


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("KeyEror", "'KeyEror' is not an exception class; did you mean 'KeyError'?"),
        ("json.Nope", "'json.Nope' is not an exception class: module 'json' has no attribute"),
        ("no_such.Error", "'no_such.Error' is not an exception class: No module named 'no_such'"),
        ("json.dumps", "'json.dumps' is not a subclass of Exception"),
        ("print", "'print' is not a subclass of Exception"),
        ("KeyboardInterrupt", "'KeyboardInterrupt' is not a subclass of Exception"),
        ("Key Error", "'Key Error' is not the name of an exception class"),
        ("", "'' is not the name of an exception class"),
        (int, "'int' is not a subclass of Exception"),
        (5, "'5' is not a subclass of Exception"),
    ],
)
def test_what_is_no_exception_class_is_named(given: Any, said: str) -> None:
    """The error has the reason and the nearest name; the list's other names are still read."""
    names, mistakes = read_names([given, OSError])
    assert names == ("OSError",)
    assert len(mistakes) == 1
    assert mistakes[0].startswith(said)
    assert "expected one such as" in mistakes[0] or "is not an exception class: " in mistakes[0]


def test_a_module_that_fails_when_it_is_imported_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any error of the import is a mistake of the definition that names the module."""
    (tmp_path / "breaks_at_import.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidInput, match="is not an exception class: no licence"):
        class_named("breaks_at_import.Error")


def test_a_scripts_own_class_has_the_name_that_workers_import(tmp_path: Path) -> None:
    """A script's module is ``__main__`` only in its own process, so the file's name is used."""
    script = tmp_path / "shop.py"
    script.write_text(
        "from multiagents.core.error_names import name_of\n"
        "class Declined(Exception): ...\n"
        "print(name_of(Declined))\n"
    )
    for words in ([str(script)], ["-m", "shop"]):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "shop.Declined"
