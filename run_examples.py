"""Run the examples: ``python run_examples.py [NAME ...]``; without a name, all of them.

An example is a module in examples/ with an async ``main()``, or a folder there whose main.py has
one.  Each runs in its own process, and starts its own worker, and its own server unless
MULTIAGENTS_REDIS_URL names one.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
EXAMPLES = ROOT / "examples"
OK, FAILED, WRONG_USE = 0, 1, 2


def find_examples(folder: Path = EXAMPLES) -> list[str]:
    """The names of all modules with an async ``main()``, sorted; imports nothing."""
    modules = [path.stem for path in folder.glob("*.py") if _has_async_main(path)]
    packages = [path.parent.name for path in folder.glob("*/main.py") if _has_async_main(path)]
    return sorted(modules + packages)


def _has_async_main(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return any(isinstance(node, ast.AsyncFunctionDef) and node.name == "main" for node in tree.body)


def run(name: str) -> bool:
    """Run one example; True if it succeeded."""
    print(f"== {name}", flush=True)
    module = f"examples.{name}.main" if (EXAMPLES / name).is_dir() else f"examples.{name}"
    code = f"import asyncio, {module} as example; asyncio.run(example.main())"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == OK


def main(wanted: list[str]) -> int:
    """Run the named examples, or all; 0 done, 1 one failed, 2 wrong use."""
    known = find_examples()
    if unknown := sorted(set(wanted) - set(known)):
        return _refuse(f"unknown example: {', '.join(unknown)}; known: {', '.join(known)}")
    failed = [name for name in wanted or known if not run(name)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return FAILED if failed else OK


def _refuse(message: str) -> int:
    print(f"run_examples.py: {message}", file=sys.stderr)
    return WRONG_USE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
