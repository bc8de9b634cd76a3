"""A worker that keeps a report for a second, not for two minutes, when it is to end.

Imported by a worker (MULTIAGENTS_IMPORTS).
"""

from __future__ import annotations

from multiagents.hosting import report_retry

report_retry.PATIENCE_S = 1.0
