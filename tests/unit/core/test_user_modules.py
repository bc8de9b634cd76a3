"""What does the error about an unimportable module say?"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiagents.core import user_modules
from multiagents.core.exceptions import InvalidInput, NoServer

FILES = {
    "um_shop.py": "print('hello')\n",
    "me/um_other.py": "",
    "um_pkg/__init__.py": "",
    "um_pkg/inner.py": "import requsts\n",
    "um_pkg/hallo.py": "",
    "um_chain.py": "x = 1\nimport um_pkg.inner\n",
    "um_from.py": "from um_pkg import nope\n",
    "um_syntax.py": "x = 1\nif x\n    pass\n",
    "um_raises.py": "def f():\n    return 1 / 0\n\nf()\n",
    "um_ends.py": "import sys\nsys.exit(0)\n",
    "um_worker.py": "from multiagents import worker\n\n@worker('um')\ndef um(): pass\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project whose modules are sound, misplaced or broken."""
    project = tmp_path / "project"
    for name, text in FILES.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "um_above.py").write_text("")
    monkeypatch.chdir(project)
    importlib.invalidate_caches()
    yield project
    ours = ("um_", "imaplib")
    for name in [name for name in sys.modules if name.startswith(ours) or name == "me"]:
        del sys.modules[name]


def said_of(*names: str) -> str:
    with pytest.raises(InvalidInput) as raised:
        user_modules.load(names)
    text = str(raised.value)
    assert text.startswith("MULTIAGENTS_IMPORTS: ")
    assert "\n" not in text
    return text.removeprefix("MULTIAGENTS_IMPORTS: ")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("um_shpo", "did you mean 'um_shop'?"),
        ("um_shop.py", "did you mean 'um_shop'?"),
        ("./um_shop.py", "did you mean 'um_shop'?"),
        ("UM_SHOP", "did you mean 'um_shop'?"),
        ("me/um_other.py", "did you mean 'me.um_other'?"),
        ("um_pkg.innr", "did you mean 'um_pkg.inner'?"),
        (".um_shop", "did you mean 'um_shop'?"),
        ("um_other", "there is 'um_other' in me: `cd me` first, and name it 'um_other'"),
        ("um_above", "there is 'um_above' in ..: `cd ..` first, and name it 'um_above'"),
        ("../um_above.py", "there is 'um_above' in ..: `cd ..` first, and name it 'um_above'"),
        ("um_shop;um_pkg", "modules are separated by commas"),
        ("zzzzzz", "modules here: um_chain, um_ends, um_from, um_raises, um_shop and 3 more"),
    ],
)
def test_a_module_that_is_not_there(folder: Path, name: str, advice: str) -> None:
    """The error has the name, the folder and the nearest module."""
    assert said_of(name) == f"no module {name!r} in {folder}; {advice}"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("um_pkg.inner", "um_pkg/inner.py:1: ModuleNotFoundError: No module named 'requsts'"),
        ("um_chain", "um_pkg/inner.py:1: ModuleNotFoundError: No module named 'requsts'"),
        ("um_from", "um_from.py:1: ImportError: cannot import name 'nope' from 'um_pkg'"),
        ("um_syntax", "um_syntax.py:2: SyntaxError: expected ':'"),
        ("um_raises", "um_raises.py:2: ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_whose_code_fails(name: str, why: str) -> None:
    """The error shows the user's own line and error."""
    text = said_of(name)
    assert text.startswith(f"module {name!r} cannot be imported: {why}")
    assert text.endswith(f"see all of it with `python -c 'import {name}'`")


def test_a_refusal_of_ours_speaks_for_itself() -> None:
    """Our own error already names the line, so nothing is added."""
    text = said_of("um_worker")
    assert text.startswith("module 'um_worker' cannot be imported: worker 'um' (um_worker.py:3)")
    assert text.endswith("as in `def charge(context)`")


def test_a_program_is_no_module() -> None:
    """A module that exits on import would end the worker without a message."""
    assert said_of("um_ends").startswith("module 'um_ends' ends the process at its import (um_e")


def test_the_first_that_fails_is_named() -> None:
    """The modules before it are imported."""
    assert said_of("um_shop", "um_nothing_like_it_at_all", "um_syntax").startswith("no module 'um")
    assert "um_shop" in sys.modules


def test_modules_come_from_the_working_folder_for_that_moment(folder: Path) -> None:
    """As with `celery`, Python's search path is restored after the import."""
    before = list(sys.path)
    user_modules.load(("um_shop", "um_pkg.hallo", "json"))
    assert sys.path == before
    assert Path(str(sys.modules["um_shop"].__file__)).parent == folder


def test_a_module_that_asks_a_server_is_not_at_fault(folder: Path) -> None:
    """`dev` has no server yet when it imports the modules."""
    asks = "from multiagents import NoServer\nraise NoServer('away')\n"
    (folder / "um_asks.py").write_text(asks)
    with pytest.raises(NoServer):
        user_modules.load(("um_asks",))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("redis", "the package 'redis'"),
        ("multiagents", "the package 'multiagents'"),
        ("random", "Python module 'random'"),
    ],
)
def test_a_module_with_the_name_of_a_package_is_not_passed_over(
    folder: Path, name: str, what: str
) -> None:
    """Python would return the imported package, or give libraries the user's file."""
    (folder / f"{name}.py").write_text("from multiagents import worker\n")
    assert said_of(name) == f"your {name}.py hides {what}; rename it"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("um_mail", "import imaplib\n\nimaplib.IMAP4('localhost')\n"),
        ("um_mail_from", "from imaplib import IMAP4\n"),
    ],
)
def test_a_module_that_hides_one_is_named_by_the_error_that_follows(
    folder: Path, name: str, text: str
) -> None:
    """The error names the hiding module, not the code that imports it."""
    (folder / "imaplib.py").write_text("LIMIT = 1\n")
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    sys.modules.pop("imaplib", None)
    said = said_of(name)
    assert said.startswith(f"module '{name}' cannot be imported: {name}.py:")
    assert said.endswith("; your imaplib.py hides Python module 'imaplib'; rename it")


def test_a_name_of_python_that_nothing_has_asked_for_may_be_the_users(folder: Path) -> None:
    """A module that hides nothing imported so far is read."""
    (folder / "imaplib.py").write_text("LIMIT = 1\n")
    importlib.invalidate_caches()
    sys.modules.pop("imaplib", None)
    user_modules.load(["imaplib"])
    user_modules.load(["imaplib"])
    assert sys.modules["imaplib"].LIMIT == 1
