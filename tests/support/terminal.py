"""How do tests type at a command on its own terminal?"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.command_line import NO_SERVER
from tests.support.processes import ROOT, environment, wait_for

_MAIN = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "from multiagents.cli import main; sys.exit(main())"
)
"""Makes standard input our controlling terminal, as a shell would, so Ctrl-C interrupts us."""
CTRL_C = b"\x03"


class OnTerminal:
    """``multiagents WORDS``, in a window of some columns and 50 lines.

    ``env`` is all of its environment; without it, that of the tests with the server at ``url``.
    """

    def __init__(
        self,
        *words: str,
        url: str = NO_SERVER,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self._read = b""
        env = {**(env or environment(url)), "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            env.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def text(self) -> str:
        """The output so far, without colours and moves of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.raw)

    @property
    def raw(self) -> str:
        """The output with colours and moves of the cursor."""
        while select.select([self._ours], [], [], 0.05)[0]:
            try:
                self._read += os.read(self._ours, 65_536)
            except OSError as error:
                if error.errno != errno.EIO:  # Linux's error after the other side has closed
                    raise
                break
        return self._read.decode(errors="replace").replace("\r\n", "\n")

    def press(self, keys: bytes) -> None:
        """Type these keys."""
        os.write(self._ours, keys)

    def shows(self, text: str, deadline_s: float = 20.0) -> None:
        """Wait until the output has a text."""
        wait_for(lambda: text in self.text, deadline_s, what=f"{text!r} in {self._read!r}")

    def ends(self, deadline_s: float = 20.0) -> int:
        """The exit code, after the command's end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(deadline_s)
        self.text  # noqa: B018 - what was written last is read
        return self.process.wait(0)
