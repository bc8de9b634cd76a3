"""Which worker keeps a report for a second, not two minutes, when it has to end?

A worker imports this module (MULTIAGENTS_IMPORTS).
"""

from __future__ import annotations

from multiagents.hosting import report_retry

report_retry.PATIENCE_S = 1.0
