"""What happens to async workers in a greenlet pool if one blocks their event loop?"""

from __future__ import annotations

import json
import subprocess
import sys


def test_a_blocked_loop_among_greenlets_is_waited_for() -> None:
    """All greenlets share one thread, in which asyncio cannot start a second loop.

    The blocking attempt is known and counts; the others lose no attempt.
    """
    program = [sys.executable, "-m", "tests.support.greenlet_loop"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    (blocking, timed_out), (quick, cut_off) = found["errors"]
    assert (blocking, quick) == ("StepTimeout", "LoopBlocked")
    assert "is still at work (its function)" in timed_out
    assert "worker 'blocks' in step 'blocks' of saga S" in cut_off
    assert "greenlet_loop.py" in found["place"]
    assert found["one_loop"]
    assert "an event loop cannot be given up among greenlets" in done.stdout
