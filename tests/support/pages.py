"""What is written in README and docs, as data?

A fenced block may be preceded by a comment that readers do not see; its directives are for the
tests (see `tests.support.page_runner`):

    <!-- file: shop.py -->             the block is a file, found by all pages and by the worker
    <!-- file: billing.py; app: yes -->  likewise, but it is a Celery app of its own
    <!-- file: try.py; run: script -->   likewise, but no worker imports it: a command runs it
    <!-- run: eager -->                run it in eager mode
    <!-- exit: 1 -->                   its last command ends with this exit code
    <!-- like: output -->              JSON with the keys of what was printed before it
    <!-- made: saga -->                a diagram that the code draws
    <!-- made: demo -->                lines that `multiagents demo` prints; times may differ
    <!-- of: examples/web/trips.py -->  lines of that file of the project, as they stand there
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import ROOT

SHELL_SESSIONS = "cli.md"
"""The page whose commands test_cli_docs.py runs, in the form of a session (``console``)."""
LANGUAGES = ("python", "sh", "json", "yaml", "mermaid", "text")
DIRECTIVES = ("file", "app", "run", "exit", "like", "made", "of")

_FENCE = re.compile(
    r"^(?:<!--(?P<comment>[^\n]*)-->\n\n?)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its first line of text, from 1."""

    page: Path
    line: int
    language: str
    text: str
    directives: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Its place: ``docs/tutorial/quickstart.md:12``."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file name of the block."""
        return self.directives.get("file")

    @property
    def is_test(self) -> bool:
        """Whether it is a file of tests."""
        return (self.file or "").startswith("test_")

    @property
    def module(self) -> str | None:
        """The name of its worker module; None for any other block."""
        ours = self.language == "python" and self.file and not self.is_test
        own = self.directives.keys() & {"app", "run"}
        return Path(str(self.file)).stem if ours and not own else None


def pages() -> list[Path]:
    """README and all pages of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    source = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            source.count("\n", 0, match.start("text")) + 1,
            match["language"].strip(),
            match["text"],
            _directives(match["comment"] or ""),
        )
        for match in _FENCE.finditer(source)
    ]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _directives(comment: str) -> dict[str, str]:
    pairs = (item.partition(":") for item in comment.split(";") if ":" in item)
    return {name.strip(): value.strip() for name, _, value in pairs}
