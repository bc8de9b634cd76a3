"""Which mistakes of a workflow are found, and what do their messages say?"""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.core.exceptions import InvalidWorkflow
from multiagents.workflows import registry
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.validate import check
from multiagents.workflows.workflow import Workflow


def workflow(*steps: Step, name: str = "order") -> Workflow:
    """An unchecked workflow."""
    return Workflow(name=name, steps=steps)


def step(name: str, *depends_on: str, **fields: Any) -> Step:
    """A step with some worker."""
    return Step(**{"name": name, "worker": "work", "depends_on": depends_on, **fields})


def chain(length: int) -> list[Step]:
    """Steps s0, s1, … that follow each other."""
    return [step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(length)]


def test_a_sound_workflow_has_no_mistakes() -> None:
    """Conditions, plain tasks, a pivot and compensations pass in their right places."""
    call = TaskCall(
        task="shop.charge", args=("input.amount", "key"), kwargs={"r": "steps.a.result"}
    )
    undo = TaskCall(task="shop.refund", args=("result.id", "step_key", "error", "steps.b.result"))
    sound = workflow(
        step("a", compensation="undo", compensate_on_failure="always"),
        step("b", "a", worker=call, compensation=undo),
        step("c", "b", pivot=True, when="steps.a.state == 'succeeded'"),
        step("d", "c", failed_when="result.ok == false || steps.d.result.ok == steps.a.result.ok"),
    )
    assert check(sound) == ()


def test_an_unknown_dependency_names_the_known_ones() -> None:
    """The message has the place, the unknown name and the known ones."""
    found = check(workflow(step("reserve"), step("charge"), step("ship", "pay")))
    assert found == ("order.steps[2] 'ship': waits for unknown step 'pay'; known: reserve, charge",)


def test_an_unknown_dependency_suggests_the_close_match() -> None:
    """A typing mistake gets the nearest name as suggestion."""
    (found,) = check(workflow(step("reserve"), step("ship", "resreve")))
    assert "did you mean 'reserve'?" in found


def test_a_duplicate_step_names_both_places() -> None:
    """This holds also for the same step added twice."""
    twice = step("pay")
    (found,) = check(workflow(twice, step("ship"), twice))
    assert found.startswith("order.steps[2] 'pay': the name is taken by order.steps[0] 'pay'")


def test_a_dependency_named_twice_is_refused() -> None:
    """The step would count it twice."""
    (found,) = check(workflow(step("a"), step("b", "a", "a")))
    assert found == "order.steps[1] 'b': waits for 'a' more than once; name it once"


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ({"a": ["a"]}, "a -> a"),
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"a": ["c"], "b": ["a"], "c": ["b"]}, "a -> b -> c -> a"),
        ({"x": [], "b": ["a", "x"], "a": ["b"]}, "b -> a -> b"),
    ],
)
def test_a_cycle_is_named_in_the_order_of_work(edges: dict[str, list[str]], cycle: str) -> None:
    """The cycle begins with its first defined step and follows the dependencies forward."""
    (found,) = check(workflow(*(step(name, *before) for name, before in edges.items())))
    assert f"steps wait for each other in a cycle: {cycle};" in found


def test_cycles_that_share_a_step_are_all_named() -> None:
    """One correction does not bring up another cycle."""
    found = check(workflow(step("a", "b", "c"), step("b", "a"), step("c", "a")))
    assert [line.split("cycle: ")[1].split(";")[0] for line in found] == [
        "a -> b -> a",
        "a -> c -> a",
    ]


def test_steps_behind_a_cycle_are_reported_once() -> None:
    """One line lists the steps that the cycle makes unreachable."""
    found = check(
        workflow(step("free"), step("a", "b"), step("b", "a"), step("c", "b"), step("d", "c"))
    )
    assert len(found) == 2
    assert found[1] == "order: unreachable, because they wait for a cycle: c, d"


def test_of_many_steps_behind_a_cycle_the_message_names_some() -> None:
    """Twelve names, and the number of the others."""
    behind = [step(f"s{number}", "a") for number in range(20)]
    found = check(workflow(step("a", "b"), step("b", "a"), *behind))
    assert found[1].endswith("cycle: " + ", ".join(f"s{n}" for n in range(12)) + " and 8 more")


@pytest.mark.parametrize(
    ("field", "expression", "reason"),
    [
        ("when", "input.amount >", "CEL 'input.amount >': at character 15"),
        ("when", "amount > 3", "unknown name 'amount'; known: input, steps (a key of the saga's"),
        ("when", "result.x == 1", "unknown name 'result'"),
        ("when", ".input.x == 1", "unknown name '.input'"),
        ("when", "steps.chrge.result.x == 1", "unknown step 'chrge'; did you mean 'charge'?"),
        ("when", "steps.later.state == 'succeeded'", "step 'later' may not have ended yet"),
        ("when", "steps.beside.state == 'succeeded'", "step 'beside' may not have ended yet"),
        ("when", "steps.ship.state == 'running'", "step 'ship' has no result yet"),
        ("when", "steps.charge.reslt.x == 1", "has no 'reslt'; did you mean 'result'?"),
        ("when", "steps.all(s, true)", "reads all steps at once"),
        ("when", "steps[input.which].result.x", "reads all steps at once"),
        ("when", "steps.pack-it.result.x == 1", 'write steps["pack-it"]'),
        ("when", "today() > 3", "unknown function 'today'"),
        ("failed_when", "key == 'x'", "unknown name 'key'; known: input, steps, result"),
        ("failed_when", "", "is empty"),
    ],
)
def test_a_bad_condition_is_found_before_it_runs(field: str, expression: str, reason: str) -> None:
    """The check covers syntax, names and results not yet available."""
    found = check(
        workflow(
            step("charge"),
            step("pack-it", "charge"),
            step("beside"),
            step("ship", "pack-it", **{field: expression}),
            step("later", "ship"),
        )
    )
    matching = [line for line in found if reason in line]
    assert matching, found
    assert matching[0].startswith(f"order.steps[3] 'ship': {field}: ")


def test_the_arguments_of_plain_tasks_are_checked_too() -> None:
    """A forward call has no result of its own, and each message has the argument's place."""
    call = TaskCall(task="t", args=("input.a", "result.id"), kwargs={"k": "steps.b.result"})
    found = check(workflow(step("a", worker=call), step("b", "a", compensation=call)))
    assert [line.split(": CEL")[0] for line in found] == [
        "order.steps[0] 'a': worker.args[1]",
        "order.steps[0] 'a': worker.kwargs.k",
    ]


def test_the_rules_of_the_pivot_are_checked() -> None:
    """A workflow has one pivot, without undo, nothing beside it and nothing to undo after it."""
    found = check(
        workflow(
            step("a", compensation="undo"),
            step("pay", "a", pivot=True, compensation="refund"),
            step("beside", "a"),
            step("ship", "pay", compensation="unship"),
            step("late", "ship", pivot=True),
        )
    )
    assert [line.split(";")[0] for line in found] == [
        "order.steps[4] 'late': a second pivot",
        "order.steps[1] 'pay': a pivot is never undone",
        "order.steps[2] 'beside': is neither before nor after the pivot 'pay'",
        "order.steps[3] 'ship': has a compensation, but comes after the pivot 'pay', after which"
        " nothing is undone",
    ]


def test_undo_options_need_a_compensation() -> None:
    """Options of an undo without a compensation are a mistake."""
    found = check(workflow(step("a", compensation_timeout_s=3, compensate_on_failure="always")))
    assert [line.split(" without")[0] for line in found] == [
        "order.steps[0] 'a': sets compensation_timeout_s",
        "order.steps[0] 'a': sets compensate_on_failure",
    ]


@pytest.mark.parametrize("name", ["a:b", "a|b", "1a", "a b", "ä", "-a", "a\n"])
def test_a_step_name_with_odd_characters_is_refused(name: str) -> None:
    """Names become keys, routes and CEL selectors."""
    (found,) = check(workflow(step(name)))
    assert "a step's name begins with a letter or _" in found


@pytest.mark.parametrize(("name", "good"), [("My order-2.b", True), ("a ", False), ("a:b", False)])
def test_a_workflow_name_may_have_spaces_inside(name: str, good: bool) -> None:
    """All other characters follow the rule for steps."""
    assert (check(workflow(step("a"), name=name)) == ()) is good


def test_a_long_chain_is_checked_without_recursion() -> None:
    """The last step's condition may read the first step at any depth."""
    steps = [*chain(3000), step("last", "s2999", when="steps.s0.result.x == 1")]
    assert check(workflow(*steps)) == ()


def test_registering_a_broken_workflow_is_refused() -> None:
    """Other processes see only checked workflows."""
    broken = workflow(step("a", "b"), step("b", "a"), step("b"), name="broken")
    with pytest.raises(InvalidWorkflow, match="'broken' has 2 mistakes") as raised:
        broken.register()
    assert len(raised.value.errors) == 2
    assert registry.find("broken") is None


def test_registering_again_may_replace() -> None:
    """With `replace` the newest definition wins; the list of names is a copy."""
    first, second = workflow(step("a"), name="again"), workflow(step("b"), name="again")
    try:
        assert first.register() is first
        assert first.register() is first
        assert second.register(replace=True) is second
        assert registry.find("again") is second
        registry.registered().clear()
        assert registry.registered()["again"] is second
    finally:
        registry.forget("again")
    assert registry.find("again") is None


@st.composite
def dags(draw: st.DrawFn) -> list[Step]:
    """The steps of a random graph without cycles, in a random order of definition."""
    size = draw(st.integers(2, 12))
    steps = []
    for number in range(size):
        earlier = [f"s{other}" for other in range(number)]
        before = (
            draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        )
        steps.append(step(f"s{number}", *before))
    return draw(st.permutations(steps))


@given(dags())
def test_a_graph_without_cycles_passes(steps: list[Step]) -> None:
    """The order of definition does not matter."""
    assert check(workflow(*steps)) == ()


@given(dags(), st.randoms(use_true_random=False))
def test_a_planted_cycle_is_found_and_real(steps: list[Step], rnd: random.Random) -> None:
    """The error reports a closed path, and each edge of the named cycle is a dependency."""
    whole = workflow(*steps)
    last = rnd.choice(steps)
    first = rnd.choice([last.name, *whole.ancestors(last.name)])
    changed = [
        each.model_copy(update={"depends_on": (*each.depends_on, last.name)})
        if each.name == first
        else each
        for each in steps
    ]
    found = [line for line in check(workflow(*changed)) if "in a cycle: " in line]
    assert found
    by_name = {each.name: each for each in changed}
    for line in found:
        names = line.split("in a cycle: ")[1].split(";")[0].split(" -> ")
        assert names[0] == names[-1]
        for before, after in pairwise(names):
            assert before in by_name[after].depends_on


@given(dags(), st.randoms(use_true_random=False))
def test_every_planted_mistake_is_found(steps: list[Step], rnd: random.Random) -> None:
    """Each mistake has its own line with its place."""
    spots = rnd.sample(range(len(steps)), 2)
    unknown, bad = steps[spots[0]], steps[spots[1]]
    planted = list(steps)
    planted[spots[0]] = unknown.model_copy(update={"depends_on": (*unknown.depends_on, "ghost")})
    planted[spots[1]] = bad.model_copy(update={"when": "input.x >"})
    planted.append(step(unknown.name))
    found = check(workflow(*planted))
    for spot, mistake in [
        (spots[0], "waits for unknown step 'ghost'"),
        (spots[1], "when: CEL"),
        (len(steps), "the name is taken by"),
    ]:
        place = f"order.steps[{spot}] {planted[spot].name!r}: {mistake}"
        assert any(line.startswith(place) for line in found), (place, found)
    assert len(found) == 3


@given(dags())
def test_exactly_the_ancestors_can_be_read(steps: list[Step]) -> None:
    """A condition on another step is refused, since that step may still be running."""
    whole = workflow(*steps)
    reader = steps[0]
    for other in whole.steps[1:]:
        condition = f"steps.{other.name}.state == 'succeeded'"
        changed = workflow(reader.model_copy(update={"when": condition}), *steps[1:])
        assert (check(changed) == ()) is (other.name in whole.ancestors(reader.name))


def test_wide_groups_are_checked_in_a_time_that_their_edges_explain() -> None:
    """640,000 edges with a condition on each step take seconds, not minutes."""
    first = [step(f"a{n}") for n in range(800)]
    names = tuple(other.name for other in first)
    second = [step(f"b{n}", *names, when=f"has(steps.a{n}.result)") for n in range(800)]
    began = time.process_time()
    assert check(workflow(*first, *second)) == ()
    assert time.process_time() - began < 5


def test_many_unknown_names_cost_no_comparison_each() -> None:
    """Only the first mistakes suggest a name; all are reported."""
    steps = [step(f"s{n}", *(f"x{n}_{k}" for k in range(200))) for n in range(200)]
    began = time.process_time()
    found = check(workflow(*steps))
    assert time.process_time() - began < 5
    assert len(found) == 40_000
    assert "known: s1, s2" in found[0]
