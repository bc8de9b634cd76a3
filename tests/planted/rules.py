"""Does the test that docs/rules.md names for a rule fail when the rule is broken?

Each `Mutant` breaks a rule in one place: a piece of text of one file, which must stand there just
once, is replaced.

    python -m tests.planted.rules [E1 ...]

makes a copy of the project with each in turn, runs its test there, and says which survived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("multiagents", "tests", "bench", "docs", "pyproject.toml", "README.md")
LEFT_OUT = ("__pycache__", ".venvs", "results", "*.patch")
TEST_S = 180


class Rotten(AssertionError):
    """The text that a mutant replaces has changed; write the mutant anew."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule broken in one place; ``test`` is to notice it."""

    rule: str
    file: str
    old: str
    new: str
    test: str


STORE, LAWS = "tests/test_store.py::test_", "tests/laws/test_"
LUA, ENGINE = "multiagents/storage/lua/", "multiagents/orchestrator/"
MUTANTS = (
    Mutant(
        "E1",
        ENGINE + "letters.py",
        "            return True\n        return bool(queue",
        "            raise\n        return bool(queue",
        "tests/test_letters.py::test_a_step_whose_queue_the_app_does_not_have_fails_itself",
    ),
    Mutant(
        "E1",
        LUA + "append.lua",
        'redis.call("ZADD", DUE, "LT", ARGV[3], "d|" .. ARGV[1])',
        "",
        STORE + "an_appended_entry_makes_the_saga_due_until_a_commit_covers_it",
    ),
    Mutant(
        "E1",
        LUA + "lib.lua",
        "  if last == cursor then\n",
        "  if true then\n",
        STORE + "an_appended_entry_makes_the_saga_due_until_a_commit_covers_it",
    ),
    Mutant(
        "E1",
        ENGINE + "coordinator.py",
        "dirty_at=entry.at_ms))",
        "dirty_at=entry.at_ms + 2000))",
        LAWS + "rules.py::test_what_an_errback_has_written_is_decided_at_once",
    ),
    Mutant(
        "E2",
        LUA + "sweep.lua",
        'redis.call("ZADD", KEYS[1], score, member)',
        'redis.call("ZREM", KEYS[1], member)',
        STORE + "a_sweep_shows_what_is_due_once_and_takes_nothing_out",
    ),
    Mutant(
        "E2",
        LUA + "append.lua",
        'if ARGV[6] ~= "" and redis.call("ZSCORE", DUE, ARGV[6]) ~= ARGV[7] then return 1 end\n',
        "",
        STORE + "a_lease_that_was_renewed_meanwhile_is_not_ended",
    ),
    Mutant(
        "E2",
        LUA + "renew.lua",
        "if not claim then return 0 end",
        'if not claim then redis.call("ZADD", KEYS[2], ARGV[4], ARGV[3]) return 1 end',
        STORE + "a_lost_lease_cannot_be_renewed",
    ),
    Mutant(
        "E2",
        "multiagents/worker_sdk/leases.py",
        "        self._cancel(attempt.nonce)\n",
        "",
        LAWS + "rules.py::test_a_lost_lease_cancels_its_attempt",
    ),
    Mutant(
        "E3",
        LUA + "claim.lua",
        'if claim or redis.call("HDEL", WORK, ARGV[1]) == 0 then return 0 end',
        'redis.call("HDEL", WORK, ARGV[1])',
        STORE + "one_attempt_is_claimed_once",
    ),
    Mutant(
        "E3",
        LUA + "claim.lua",
        'string.match(claim, "|(%x+)|") == ARGV[4]',
        "false",
        STORE + "one_attempt_is_claimed_once",
    ),
    Mutant(
        "E3",
        LUA + "lib.lua",
        'if redis.call("HDEL", WORK, field) == 1 then',
        "do",
        STORE + "a_claimed_command_is_not_withdrawn",
    ),
    Mutant(
        "E3",
        ENGINE + "moves.py",
        "        plan = self._plan(ground, decision)\n        for each in begun:",
        "        plan = self._plan(ground, decision)\n"
        '        if waiting:\n            plan.outbox[_field(waiting[0])] = "0|0", 0\n'
        "        for each in begun:",
        LAWS + "overtaken.py::test_a_place_is_not_handed_on_to_what_another_has_begun",
    ),
    Mutant(
        "E3",
        ENGINE + "claims.py",
        "    if saga.steps[done.step].work.nonce != done.nonce:\n",
        "    if False:\n",
        LAWS + "overtaken.py::test_a_late_process_goes_on_with_the_result_that_counts",
    ),
    Mutant(
        "E4",
        LUA + "lib.lua",
        'redis.call("SADD", IDS, id) == 1 and',
        'redis.call("SADD", IDS, id) and',
        STORE + "a_known_entry_is_not_appended_again",
    ),
    Mutant(
        "E4",
        LUA + "append.lua",
        'if redis.call("EXISTS", SAGA) == 0 then',
        "if false then",
        STORE + "an_append_to_a_missing_saga_creates_nothing",
    ),
    Mutant(
        "E5",
        "multiagents/hosting.py",
        "            fenced.last = (task_id, held)\n",
        "",
        "tests/test_team_fence.py::"
        "test_the_link_of_a_task_with_a_base_counts_only_for_the_claim_it_held",
    ),
    Mutant(
        "E5",
        ENGINE + "moves.py",
        "version=self.nonce(),",
        'version=f"{int(ground.cursor or 9):016x}",',
        LAWS + "rules.py::test_no_two_commits_make_the_same_version",
    ),
    Mutant(
        "E5",
        ENGINE + "attempts.py",
        'self._call_for_attention(f"report of an unknown attempt of {entry.step!r}")',
        "return",
        LAWS + "rules.py::test_a_report_of_an_unknown_claim_is_recorded_and_asks_for_a_person",
    ),
    Mutant(
        "E5",
        ENGINE + "people.py",
        "for note in self.saga.attention if note not in over",
        "for note in self.saga.attention if self._parked()",
        LAWS + "cases.py::test_settling_a_dead_letter_leaves_the_other_calls_for_a_person",
    ),
    Mutant(
        "E5",
        ENGINE + "people.py",
        "return parked(run) is entry.letter and entry.parked_at in (0, since_ms)",
        "return entry.parked_at in (0, since_ms)",
        LAWS + "cases.py::test_a_decision_on_a_dead_letter_passes_over_any_other",
    ),
    Mutant(
        "E5",
        ENGINE + "people.py",
        "return parked(run) is entry.letter and entry.parked_at in (0, since_ms)",
        "return parked(run) is entry.letter",
        LAWS + "cases.py::test_a_decision_on_a_dead_letter_passes_over_any_other",
    ),
    Mutant(
        "E5",
        ENGINE + "steering.py",
        "refusal(workflow, before, command, step, letter)",
        "refusal(workflow, before, command, step)",
        "tests/test_dead_letters_meant.py::test_letters_that_were_listed_are_settled_and_no_others",
    ),
    Mutant(
        "E5",
        "multiagents/cli/dead_letters.py",
        "decision, **given, letters=meant)",
        "decision, **wanted)",
        "tests/test_dead_letters_meant.py::test_the_command_line_settles_what_it_has_shown",
    ),
    Mutant(
        "E5",
        ENGINE + "coordinator.py",
        "        held = attempts\n",
        "        held = None\n",
        LAWS + "plain_tasks.py::test_a_return_counts_only_for_the_claim_that_it_held",
    ),
    Mutant(
        "E5",
        LUA + "drop.lua",
        "~= ARGV[5] then",
        "~= ARGV[5] and false then",
        LAWS + "moves.py::test_a_sweep_forgets_nothing_for_a_reason_that_is_lost",
    ),
    Mutant(
        "E5",
        LUA + "settle.lua",
        "local same = f[1] == ARGV[3]",
        "local same = f[1]",
        "tests/test_answers.py::test_a_log_is_compressed_only_at_the_version_that_was_read",
    ),
    Mutant(
        "E6",
        ENGINE + "attempts.py",
        "            self._step(entry.step, done=True)\n            self._surface(entry.step)\n",
        "            self._step(entry.step, done=True)\n",
        LAWS + "moves.py::test_a_lost_and_late_success_reopens_what_has_ended",
    ),
    Mutant(
        "E6",
        ENGINE + "attempts.py",
        "elif isinstance(entry, Succeeded) and run.state is not StepState.SUCCEEDED:",
        "elif False:",
        LAWS + "overtaken.py::test_a_success_is_undone_whose_failure_another_has_reported",
    ),
    Mutant(
        "E7",
        ENGINE + "attempts.py",
        "unknown=run.unknown or unknown)",
        "unknown=unknown)",
        LAWS + "rules.py::test_a_lost_attempt_makes_a_step_unknown_that_failed_clean_later",
    ),
    Mutant(
        "E8",
        "multiagents/core/ids.py",
        'tail = f":undo:{generation}" if undo else ""',
        'tail = ":undo" if undo else ""',
        LAWS + "rules.py::test_an_undo_has_keys_and_attempts_of_its_own",
    ),
    Mutant(
        "E8",
        "multiagents/core/ids.py",
        'tail = f":undo:{generation}" if undo else ""',
        'tail = ""',
        LAWS + "rules.py::test_an_undo_has_keys_and_attempts_of_its_own",
    ),
    Mutant(
        "E9",
        LUA + "sweep.lua",
        "if now - last > lease / 2 then grace = now + lease end\n",
        "",
        STORE + "after_a_gap_in_sweeping_leases_get_a_full_term",
    ),
    Mutant(
        "E9",
        ENGINE + "claims.py",
        "max(self.settings.lease_ms, round(",
        "min(self.settings.lease_ms, 10**9 + round(",
        "tests/test_leases.py::test_a_cpu_step_has_a_lease_of_fifteen_seconds_at_least",
    ),
    Mutant(
        "E9",
        "multiagents/worker_sdk/leases.py",
        "            self._engine.count_late()\n",
        "",
        "tests/test_leases.py::test_a_late_renewal_is_counted",
    ),
    Mutant(
        "E9",
        "multiagents/worker_sdk/leases.py",
        "            if not self._has_timed_out(attempt, now_ms):",
        "            if self._time_out(attempt, grace_is_over=True):",
        "tests/test_leases.py::"
        "test_a_time_out_that_cannot_be_reported_keeps_no_lease_from_being_renewed",
    ),
    Mutant(
        "E9",
        "multiagents/worker_sdk/leases.py",
        "        over = held.nonce in self._ended or",
        "        over =",
        "tests/test_leases.py::test_what_has_ended_in_time_is_renewed_and_not_timed_out",
    ),
    Mutant(
        "E9",
        "multiagents/worker_sdk/leases.py",
        "        elif nonce in self._held and nonce not in self._ended:",
        "        elif True:",
        "tests/test_leases.py::test_a_time_limits_signal_that_comes_late_is_ignored",
    ),
    Mutant(
        "E9",
        "multiagents/bootstrap.py",
        "            self.timekeeper.keep(self.edge)\n            return",
        "            return",
        "tests/test_clocks.py::test_a_client_starts_sagas_by_the_servers_clock",
    ),
    Mutant(
        "E9",
        "multiagents/bootstrap.py",
        "self.timekeeper.keep(self._main_edge, only_if_set=only)",
        "None",
        "tests/test_clocks.py::test_a_worker_process_gives_its_keeper_of_leases_the_servers_time",
    ),
    Mutant(
        "E9",
        "multiagents/storage/timekeeping.py",
        "return same and abs(self._measured_ms() - self._lead_ms) < STEP_MS",
        "return same",
        "tests/test_clocks.py::test_a_clock_is_compared_at_first_each_minute_and_when_it_was_set",
    ),
    Mutant(
        "E9",
        "multiagents/worker_sdk/leases.py",
        "not 0 <= since_ms < self._lease_ms / 3",
        "since_ms >= self._lease_ms / 3",
        "tests/test_clocks.py::test_a_keeper_of_leases_keeps_the_time",
    ),
    Mutant(
        "E9",
        "multiagents/orchestrator/sweeper_thread.py",
        "            self._timekeeper.keep(self._edge)\n",
        "            pass\n",
        "tests/test_clocks.py::test_a_sweepers_clock_that_was_set_back_is_corrected",
    ),
    Mutant(
        "E9",
        "multiagents/core/clock.py",
        "self.offset_ms = server_ms",
        "self.offset_ms += 0 * server_ms",
        LAWS + "rules.py::test_the_servers_time_is_the_engines",
    ),
    Mutant(
        "E10",
        ENGINE + "sweeper.py",
        "waits = backlog.head_sent_ms <= sent_ms",
        "waits = False",
        "tests/test_sweeper.py::test_a_command_behind_a_backlog_is_not_sent_again",
    ),
    Mutant(
        "E10",
        ENGINE + "sweeper.py",
        "if not 0 <= now_ms - looked_ms < LOOK_MS:",
        "if True:",
        "tests/test_sweeper.py::test_a_long_queue_is_looked_into_for_all_that_waits_in_it",
    ),
    Mutant(
        "E10",
        ENGINE + "sweeper.py",
        "later_ms = max(lease_ms, (now_ms - sent_ms) // LATER)",
        "later_ms = lease_ms",
        "tests/test_sweeper.py::test_what_has_waited_long_is_looked_for_less_often",
    ),
    Mutant(
        "E10",
        ENGINE + "outbox.py",
        "return outbox_value(0, 0), now_ms + UNCONFIRMED_MS",
        "return outbox_value(0, 0), now_ms + 1000 * UNCONFIRMED_MS",
        "tests/test_sweeper.py::test_a_command_whose_sending_failed_is_sent_by_a_sweep",
    ),
    Mutant(
        "E10",
        ENGINE + "tasks.py",
        "priority_of(self.app, effect.priority), channel)",
        "effect.priority or 0, channel)",
        "tests/test_letters.py::test_a_look_into_a_queue_finds_the_message",
    ),
    Mutant(
        "E11",
        "multiagents/event_bus/transport.py",
        "        if mark is None:\n            return False\n",
        "        if mark is None:\n            return True\n",
        "tests/test_transport.py::test_only_foreign_messages_are_kept_on_the_server",
    ),
    Mutant(
        "E11",
        "multiagents/event_bus/transport.py",
        "return len(mark) == 6 or",
        "return",
        "tests/test_transport.py::test_only_foreign_messages_are_kept_on_the_server",
    ),
    Mutant(
        "E12",
        ENGINE + "answers.py",
        "int(backend.expires or 0)",
        "0",
        LAWS + "rules.py::test_a_result_is_kept_as_long_as_its_saga",
    ),
    Mutant(
        "E12",
        LUA + "start.lua",
        'redis.call("HSETNX", DATA, "alias:" .. task_id, canvas)',
        "",
        STORE + "a_second_start_with_one_id_joins_the_first",
    ),
    Mutant(
        "E12",
        ENGINE + "tasks.py",
        "self._go_on(canvas, effect.result)",
        "pass",
        "tests/test_team_app.py::test_a_saga_is_a_link_of_a_canvas",
    ),
    Mutant(
        "E12",
        ENGINE + "outcome.py",
        'started = f"told:{task_id}" in data',
        "started = False",
        LAWS + "ends.py::test_a_canvas_is_started_once_however_many_starts_follow",
    ),
    Mutant(
        "E12",
        LUA + "telling.lua",
        "(free or tonumber(ends) <= tonumber(ARGV[2]))",
        "true",
        LAWS + "ends.py::test_a_canvas_is_started_once_though_two_tell_of_the_end",
    ),
    Mutant(
        "E12",
        LUA + "telling.lua",
        'if free then redis.call("HDEL", DATA, field) end',
        "",
        LAWS + "ends.py::test_a_canvas_that_could_not_be_started_is_started_by_the_next",
    ),
    Mutant(
        "E12",
        ENGINE + "coordinator.py",
        "            yield from ask(ends.owe(keys, self.clock.now_ms() + outbox.UNCONFIRMED_MS))\n",
        "",
        LAWS + "ends.py::test_who_starts_after_the_end_is_told_though_it_cannot_be_done_at_once",
    ),
    Mutant(
        "E12",
        LUA + "settle.lua",
        "if owed and owed ~= ARGV[6] then return 0 end\n",
        "",
        LAWS + "ends.py::test_who_starts_while_the_end_is_told_is_not_forgotten",
    ),
    Mutant(
        "E12",
        ENGINE + "coordinator.py",
        "or move.decision.end is not saga.state:",
        "or False:",
        LAWS + "ends.py::test_the_first_end_is_told_though_one_decision_went_past_it",
    ),
    Mutant(
        "E13",
        "multiagents/hosting.py",
        "            if not held:\n                raise Ignore\n",
        "",
        "tests/test_team_app.py::test_a_plain_task_that_is_delivered_again_does_not_run_again",
    ),
    Mutant(
        "E13",
        "multiagents/hosting.py",
        "            _fence_registered(parent.app, hosted)\n",
        "",
        "tests/test_team_fence.py::test_a_task_of_any_kind_does_not_run_again",
    ),
    Mutant(
        "E13",
        "multiagents/hosting.py",
        "            setattr(request, _PASSED, True)\n",
        "",
        "tests/test_team_fence.py::test_a_class_that_is_fenced_twice_asks_once_and_the_last_worker",
    ),
    Mutant(
        "E13",
        LUA + "publish.lua",
        'if ARGV[i + 5] ~= "" and value ~= ARGV[i + 1] then',
        'if ARGV[i + 5] ~= "" then',
        LAWS + "plain_tasks.py::test_a_task_whose_claim_was_sent_twice_is_sent_once",
    ),
    Mutant(
        "E13",
        LUA + "publish.lua",
        "if value and is_same(ARGV[i], value, ARGV[i + 1]) then",
        "if value then",
        LAWS + "plain_tasks.py::test_a_task_that_was_given_up_before_it_was_sent_is_not_sent",
    ),
    Mutant(
        "E13",
        ENGINE + "plain.py",
        "        return self.clock.now_ms() + round(timeout_s * 1000)\n",
        "        return self.clock.now_ms() + round(timeout_s * 100)\n",
        LAWS + "rules.py::test_a_plain_task_is_sent_once_and_its_time_out_decides",
    ),
    Mutant(
        "E14",
        "multiagents/worker_sdk/tasks.py",
        "in_time and not worn and not self.stopping()",
        "in_time and not worn",
        LAWS + "rules.py::test_a_worker_that_stops_continues_nothing",
    ),
    Mutant(
        "E14",
        "multiagents/worker_sdk/tasks.py",
        "in_time and not worn and not self.stopping()",
        "in_time and not self.stopping()",
        "tests/test_children.py::test_continued_steps_wear_a_child_out",
    ),
    Mutant(
        "E14",
        "multiagents/worker_sdk/tasks.py",
        "return process.may_go_on(slot.count, slot.ends_at)",
        "return True",
        "tests/test_worker_stopping.py::test_whether_to_go_on_is_asked_when_a_step_is_reported",
    ),
    Mutant(
        "E14",
        "multiagents/worker_sdk/stopping.py",
        "self._byte = mmap(-1, 1)",
        "self._byte = bytearray(1)",
        "tests/test_worker_stopping.py::test_a_child_sees_that_its_worker_stops",
    ),
    Mutant(
        "E14",
        "multiagents/bootstrap.py",
        "if isinstance(self.app.tasks.get(task), WorkerTask):",
        "if False:",
        "tests/test_duplicates.py::test_a_claim_that_fails_does_not_fail_what_another_worker_runs",
    ),
    Mutant(
        "E14",
        ENGINE + "discards.py",
        "    return len(mark) == 6",
        "    return False",
        "tests/test_duplicates.py::"
        "test_a_worker_without_the_function_does_not_fail_what_another_runs",
    ),
    Mutant(
        "E14",
        "multiagents/storage/sagas.py",
        "            if holder == delivery:\n",
        "            if False:\n",
        LAWS + "rules.py::test_an_errback_fails_what_its_delivery_holds_now",
    ),
    Mutant(
        "E14",
        ENGINE + "letters.py",
        '"timelimit": [None, None],',
        '"timelimit": [9, 9],',
        "tests/test_messages.py::test_a_step_message_carries_its_errback_and_its_attempt",
    ),
    Mutant(
        "E14",
        ENGINE + "holding.py",
        "        if held is None and kind is Kind.RUN:\n",
        "        if False:\n",
        LAWS + "fan_out.py::test_a_message_for_a_branch_that_was_taken_over_takes_another",
    ),
    Mutant(
        "E14",
        ENGINE + "holding.py",
        "held = yield from self._claim(where, what, alone=True)",
        "held = yield from self._claim(where, what)",
        LAWS + "fan_out.py::test_a_message_that_was_sent_again_takes_nothing_beside_the_first",
    ),
    Mutant(
        "E14",
        ENGINE + "coordinator.py",
        "        return (yield from self._keep_place(keys, workflow, saga, go_on))\n",
        "        return None\n",
        LAWS + "fan_out.py::test_a_process_whose_report_another_decided_over_keeps_its_place",
    ),
    Mutant(
        "E14",
        LUA + "handover.lua",
        'if value and string.match(value, "|0$") then',
        "if true then",
        LAWS + "fan_out.py::test_a_place_is_handed_on_to_what_nobody_has_begun",
    ),
    Mutant(
        "E14",
        LUA + "handover.lua",
        'if value and string.match(value, "|0$") then',
        "if value then",
        STORE + "two_that_leave_their_places_send_two_commands",
    ),
    Mutant(
        "E15",
        ENGINE + "planning.py",
        "for name in sorted(decision.changed)",
        "for name in saga.steps",
        LAWS + "rules.py::test_a_commit_writes_only_what_has_changed",
    ),
    Mutant(
        "E15",
        LUA + "lib.lua",
        "local PAGE = 500 ",
        "local PAGE = 5000 ",
        LAWS + "rules.py::test_a_long_log_is_read_in_pages",
    ),
    Mutant(
        "E16",
        LUA + "purge.lua",
        "if f[1] ~= ARGV[2] or tonumber(f[2]) ~= log_end(f[3]) then return 0 end\n",
        "",
        STORE + "a_purge_removes_everything_and_only_what_it_looked_at",
    ),
    Mutant(
        "E16",
        LUA + "append.lua",
        '  if ARGV[6] ~= "" then redis.call("ZREM", DUE, ARGV[6]) end\n  return 0\n',
        "  return 0\n",
        STORE + "a_due_entry_of_a_missing_saga_is_dropped",
    ),
    Mutant(
        "E16",
        LUA + "purge.lua",
        'if redis.call("HEXISTS", WORK, "o:end") == 1 then',
        "if false then",
        LAWS + "ends.py::test_retention_waits_until_the_end_is_told",
    ),
    Mutant(
        "E16",
        LUA + "owe.lua",
        'if redis.call("EXISTS", SAGA) == 0 then return 0 end\n',
        "",
        LAWS + "ends.py::test_what_is_gone_owes_nothing",
    ),
    Mutant(
        "E17",
        ENGINE + "backward.py",
        "return run.unknown or run.state in {StepState.RUNNING, StepState.SUCCEEDED}",
        "return run.unknown or run.state is StepState.SUCCEEDED",
        LAWS + "rules.py::test_the_pivot_counts_as_passed_from_its_first_claim",
    ),
    Mutant(
        "E17",
        ENGINE + "backward.py",
        "            return self.steps[but].unknown\n",
        "            return True\n",
        LAWS + "rules.py::test_a_pivot_that_failed_clean_is_not_passed",
    ),
    Mutant(
        "E17",
        ENGINE + "backward.py",
        "            return self.steps[but].unknown\n",
        "            return False\n",
        LAWS + "rules.py::test_a_pivot_that_may_have_acted_is_parked",
    ),
    Mutant(
        "E17",
        ENGINE + "backward.py",
        "if pivot and run and run.state is StepState.DISPATCHED:",
        "if pivot and run and run.state is StepState.PARKED:",
        LAWS + "rules.py::test_a_pivot_that_was_claimed_in_time_is_not_undone",
    ),
    Mutant(
        "E19",
        ENGINE + "decide.py",
        "run.state is StepState.RETRYING and self.saga.state is SagaState.RUNNING:",
        "run.state is StepState.RETRYING:",
        LAWS + "rules.py::test_in_a_pause_leases_and_the_deadline_go_on",
    ),
    Mutant(
        "E19",
        ENGINE + "people.py",
        "if run.state is StepState.RETRYING and run.work.retry_at <= self.now_ms:",
        "if run.state is StepState.PARKED:",
        LAWS + "cases.py::test_a_timer_that_came_due_while_paused_is_made_up_for_by_any_clock",
    ),
    Mutant(
        "E19",
        ENGINE + "backward.py",
        "        if self.saga.state not in _STOPPABLE or self.saga.halting:\n",
        "        if self.saga.state is SagaState.PAUSED or self.saga.halting:\n",
        LAWS + "rules.py::test_in_a_pause_leases_and_the_deadline_go_on",
    ),
    Mutant(
        "E19",
        ENGINE + "turn.py",
        "        if not taken:\n",
        "        if True:\n",
        LAWS + "overtaken.py::test_nothing_new_begins_after_a_person_has_said_stop",
    ),
    Mutant(
        "E20",
        "multiagents/bootstrap.py",
        "timeout_s=MAIN_TIMEOUT_S, retries=0)",
        ")",
        LAWS + "rules.py::test_a_workers_main_process_waits_a_second_for_a_silent_server",
    ),
    Mutant(
        "E20",
        "multiagents/bootstrap.py",
        "Courier(self.app, hasty=True)",
        "Courier(self.app)",
        "tests/test_broker.py::test_a_broker_that_is_away_holds_up_no_deadline",
    ),
    Mutant(
        "E20",
        "multiagents/storage/client.py",
        "        if self._pid != os.getpid():\n            with",
        "        if self._client is None:\n            with",
        LAWS + "rules.py::test_a_forked_child_has_connections_of_its_own",
    ),
)


def changed(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of its file with the rule broken.  Raises Rotten."""
    text = (root / mutant.file).read_text("utf-8")
    if text.count(mutant.old) != 1:
        places = f"{mutant.file} has {text.count(mutant.old)} places like this one, expected one"
        raise Rotten(f"{mutant.rule}: {places}:\n{mutant.old}")
    return text.replace(mutant.old, mutant.new)


@contextmanager
def copy() -> Iterator[Path]:
    """The project without what its tests do not need."""
    with tempfile.TemporaryDirectory(prefix="rules-") as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
            else:
                shutil.copy(source, target)
        yield Path(folder)


def survives(mutant: Mutant, root: Path) -> bool:
    """Whether its test passes although the rule is broken."""
    path = root / mutant.file
    before = path.read_text("utf-8")
    path.write_text(changed(mutant, root), "utf-8")
    try:
        return passes(mutant.test, root)
    finally:
        path.write_text(before, "utf-8")


def passes(test: str, root: Path) -> bool:
    """Run one test in a copy.  Raises RuntimeError if it could not be run at all."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", test],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TEST_S,
        check=False,
    )
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"{test} cannot be run:\n{ended.stdout[-3000:]}{ended.stderr[-1000:]}")
    return ended.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants of these rules, or all; 1 if one survived or has rotted."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted.rules")
    parser.add_argument("rules", nargs="*", help="such as E1; all if none is given")
    given = parser.parse_args(arguments)
    bad = 0
    with copy() as root:
        for mutant in MUTANTS:
            if given.rules and mutant.rule not in given.rules:
                continue
            try:
                said = "SURVIVED" if survives(mutant, root) else "found"
            except (Rotten, RuntimeError) as error:
                said = f"not tried: {error}"
            bad += said != "found"
            print(f"{mutant.rule:<4}{said:<10}{mutant.test.rpartition('::')[2]}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
