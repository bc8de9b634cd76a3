"""Run the examples: ``python run_examples.py [NAME ...]``; without a name, all of them.

An example is a module in examples/ with an async ``main()``.  Each runs in a process of its own,
against the server that MULTIAGENTS_REDIS_URL names.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
EXAMPLES = ROOT / "examples"
OK, FAILED, WRONG_USE = 0, 1, 2


def find_examples(folder: Path = EXAMPLES) -> list[str]:
    """The names of the modules with an async ``main()``, sorted; nothing is imported."""
    return sorted(path.stem for path in folder.glob("*.py") if _has_async_main(path))


def _has_async_main(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return any(isinstance(node, ast.AsyncFunctionDef) and node.name == "main" for node in tree.body)


def run(name: str) -> bool:
    """Run one example; whether it succeeded."""
    print(f"== {name}", flush=True)
    code = f"import asyncio, examples.{name} as example; asyncio.run(example.main())"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == OK


def main(wanted: list[str]) -> int:
    """Run the wanted examples, all if none is named; 0 done, 1 one failed, 2 wrong use."""
    known = find_examples()
    if unknown := sorted(set(wanted) - set(known)):
        return _refuse(f"unknown example: {', '.join(unknown)}; known: {', '.join(known)}")
    if not os.environ.get("MULTIAGENTS_REDIS_URL"):
        return _refuse(
            "set MULTIAGENTS_REDIS_URL to a running Redis or Valkey server, for instance"
            " MULTIAGENTS_REDIS_URL=redis://127.0.0.1:6379/0; without one: multiagents demo"
        )
    failed = [name for name in wanted or known if not run(name)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return FAILED if failed else OK


def _refuse(message: str) -> int:
    print(f"run_examples.py: {message}", file=sys.stderr)
    return WRONG_USE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
