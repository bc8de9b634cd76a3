"""How is the rule E21 broken?"""

from __future__ import annotations

from tests.simulation.planted.mutant import FLOWS, LUA, Mutant

REFUSED = FLOWS + "refused_keys.py::"

E21 = (
    Mutant(
        "E21",
        LUA + "lib.lua",
        '    if type(sent) == "table" then\n',
        "    if false then\n",
        REFUSED + "test_a_start_is_recorded_whole_though_its_queue_refuses_the_message",
    ),
    Mutant(
        "E21",
        LUA + "lib.lua",
        'redis.pcall("LPUSH", ARGV[i + 1], ARGV[i + 2])',
        'redis.call("LPUSH", ARGV[i + 1], ARGV[i + 2])',
        REFUSED + "test_a_report_counts_though_the_next_queue_refuses_its_message",
    ),
    Mutant(
        "E21",
        "multiagents/engine/duties.py",
        "if task is not None and task.nonce == held.nonce and now_ms < task.deadline_ms:",
        "if task is not None and not held.nonce:",
        REFUSED + "test_a_plain_task_that_its_queue_refuses_is_sent_when_the_key_is_put_right",
    ),
    Mutant(
        "E21",
        LUA + "settle.lua",
        "if refused[1] then return refused end\n",
        "",
        REFUSED + "test_an_end_whose_result_is_refused_is_owed_still",
    ),
    Mutant(
        "E21",
        "multiagents/hosting/sweeper_thread.py",
        "            await self._put_off(shard, item, error)\n",
        "            raise\n",
        REFUSED + "test_a_refused_saga_keeps_no_other_waiting",
    ),
    Mutant(
        "E21",
        LUA + "putoff.lua",
        "2 ^ math.min(failures - 1, 20)",
        "1",
        REFUSED + "test_what_fails_again_and_again_is_tried_less_often_up_to_a_minute",
    ),
    Mutant(
        "E21",
        LUA + "remove.lua",
        'for i = 12, #KEYS do redis.pcall("ZREM", KEYS[i], ARGV[1]) end\n',
        "",
        "tests/store/test_damaged.py"
        "::test_a_damaged_saga_is_taken_away_whole_and_its_key_starts_a_new_one",
    ),
)
