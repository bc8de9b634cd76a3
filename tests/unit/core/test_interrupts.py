"""Does a signal leave a critical block whole?"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from multiagents.cli import main
from multiagents.core.interrupts import INTERRUPTED, ending_at_once, held_back


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    """The signal neither gets lost nor interrupts the block."""
    done = []

    def two_lines() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        two_lines()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_stays_ignored_in_a_process_started_there() -> None:
    """Child processes inherit what `nohup` ignores."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with held_back():
            told = subprocess.run(
                [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGHUP))"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "SIG_IGN" in told.stdout or told.stdout.strip() == "1"


@pytest.mark.parametrize(
    "program",
    [
        "import sys; from multiagents.cli import main; sys.exit(main())",
        "import runpy; runpy.run_module('multiagents', run_name='__main__')",
    ],
)
def test_ctrl_c_while_a_command_imports_ends_it_with_130_and_no_traceback(program: str) -> None:
    """Ctrl-C ends a command during its half second of imports just as it does later."""
    stop = """
import signal, sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "multiagents.cli.app":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
sys.argv = ["multiagents", "--version"]
"""
    ended = subprocess.run(
        [sys.executable, "-c", stop + program], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (INTERRUPTED, "", "")


def test_ctrl_c_is_an_exception_again_after_the_imports() -> None:
    """A command can clean up, and a calling program keeps its own handler."""
    with ending_at_once():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert main(["--version"]) == 0
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_before_a_command_has_begun_is_130_too() -> None:
    """The exit code is the same between the imports and the command's own code."""

    class Pressing(str):
        def __eq__(self, other: object) -> bool:
            raise KeyboardInterrupt

        __hash__ = str.__hash__

    assert main([Pressing("list")]) == INTERRUPTED
