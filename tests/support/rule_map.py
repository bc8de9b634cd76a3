"""Which tests hold each rule of the engine?  ``tests/rules.toml``, as data.

    python -m tests.support.rule_map

writes the table of docs/reference/rules.md anew.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

FILE = ROOT / "tests" / "rules.toml"
ABSENT = "not in this version"
_START, _END = "<!-- made of tests/rules.toml -->\n\n", "<!-- end -->\n"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; ``tests`` are pytest's ids, none if the rule belongs to a later version."""

    number: str
    title: str
    tests: tuple[str, ...]

    @property
    def heading(self) -> str:
        """The heading of its section in docs/reference/rules.md."""
        return f"{self.number}. {self.title}"


def rules() -> tuple[Rule, ...]:
    """All rules in the order of the file."""
    found = tomllib.loads(FILE.read_text("utf-8"))
    return tuple(
        Rule(number, str(row["title"]), tuple(map(str, row["tests"])))
        for number, row in found.items()
    )


def rules_page() -> Path:
    """The page that states the rules."""
    (page,) = (ROOT / "docs").rglob("rules.md")
    return page


def table() -> str:
    """The page's table: one row per rule, with a link and the number of its tests."""
    lines = ["| Rule | What holds | Tests |", "|---|---|---|"]
    for rule in rules():
        count = str(len(rule.tests)) if rule.tests else ABSENT
        lines.append(f"| [{rule.number}](#{_anchor(rule.heading)}) | {rule.title} | {count} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The page with its table rewritten.  Raises ValueError if it has no place for one."""
    before, start, rest = text.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise ValueError(f"expected {_START.strip()} and {_END.strip()} around the page's table")
    return before + start + table() + "\n" + end + after


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    page = rules_page()
    page.write_text(with_table(page.read_text("utf-8")), "utf-8")
