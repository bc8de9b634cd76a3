"""Is what must not be cut in two left whole by a signal?"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from multiagents.core.interrupts import held_back


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    """It is neither lost nor does it cut the block."""
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
    """`nohup` reaches the children."""
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
