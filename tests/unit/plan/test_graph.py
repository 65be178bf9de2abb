"""Graphs as properties: what is acyclic passes, what is not is shown by a true cycle, and the skeleton keeps every edge."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.skeleton import from_wire, to_wire
from engine.domain.tenant import Bounds
from engine.plan import check_plan, skeleton_of
from engine.plan.graph import depth_of, find_cycles, longest_path, topological_order

from .samples import CATALOG, TENANT, SampleCatalog, capability, plan, ref, step, tenant_for

WIDE = tenant_for(CATALOG, bounds=Bounds(max_steps=5_000, max_depth=5_000, max_wall_time_s=30 * 86_400))

Edges = dict[int, dict[int, bool]]
"""For each node the earlier nodes it comes after; True when by reference, False when by ``needs``."""


@st.composite
def acyclic(draw: st.DrawFn) -> tuple[list[int], Edges]:
    """A random graph and the order its nodes are written in."""
    size = draw(st.integers(1, 14))
    edges = {
        node: draw(st.dictionaries(st.integers(0, node - 1), st.booleans(), max_size=4)) if node else {}
        for node in range(size)
    }
    return draw(st.permutations(range(size))), edges


def document(written: list[int], edges: Edges) -> dict[str, Any]:
    return plan(
        *(
            step(
                f"n{node}",
                needs=[f"n{need}" for need, by_reference in edges[node].items() if not by_reference],
                inputs={
                    f"i{need}": ref(f"steps.n{need}#/x") for need, by_reference in edges[node].items() if by_reference
                },
            )
            for node in written
        )
    )


@given(acyclic())
@settings(suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
def test_an_acyclic_plan_passes_and_its_skeleton_has_its_edges_in_order(graph: tuple[list[int], Edges]) -> None:
    written, edges = graph
    result = check_plan(document(written, edges), tenant=TENANT, catalog=CATALOG)
    assert result.ok, result.violations
    assert result.edges == sum(map(len, edges.values()))
    assert len(result.warnings) == sum(by_reference for needs in edges.values() for by_reference in needs.values())
    assert result.plan is not None
    skeleton = skeleton_of(result.plan)
    ids = [each.id for each in skeleton.steps]
    assert sorted(ids) == sorted(f"n{node}" for node in edges)
    for index, each in enumerate(skeleton.steps):
        assert {ids[need] for need in each.needs} == {f"n{need}" for need in edges[int(each.id[1:])]}
        assert all(need < index for need in each.needs)
    assert from_wire(to_wire(skeleton)) == skeleton


@given(acyclic(), st.data())
def test_a_back_edge_is_reported_as_a_true_cycle(graph: tuple[list[int], Edges], data: st.DataObject) -> None:
    written, edges = graph
    later = [(node, need) for node, needs in edges.items() for need in needs]
    if not later:
        return
    node, need = data.draw(st.sampled_from(later))
    edges[need][node] = data.draw(st.booleans())
    violations = check_plan(document(written, edges), tenant=TENANT, catalog=CATALOG).violations
    assert violations
    for violation in violations:
        assert violation.code == "plan.cycle"
        names = violation.message.split(": ")[1].split(" → ")
        assert names[0] == names[-1]
        assert len(names) > 2
        for this, following in itertools.pairwise(names):
            assert int(following[1:]) in edges[int(this[1:])]
        place = violation.pointer.split("/")
        assert (place[1], written[int(place[2])]) == ("steps", int(names[0][1:]))


@given(acyclic())
def test_order_depth_and_longest_path_agree_with_a_plain_reckoning(graph: tuple[list[int], Edges]) -> None:
    _, edges = graph
    needs = [sorted(edges[node]) for node in sorted(edges)]
    order = topological_order(needs)
    assert order is not None
    assert find_cycles(needs) == []
    weight = [float(1 + node % 3) for node in range(len(needs))]
    depth: list[int] = []
    total: list[float] = []
    for node, earlier in enumerate(needs):
        depth.append(1 + max((depth[need] for need in earlier), default=0))
        total.append(weight[node] + max((total[need] for need in earlier), default=0.0))
    assert depth_of(needs, order) == max(depth)
    path, length = longest_path(needs, order, weight)
    assert length == max(total) == sum(weight[node] for node in path)
    assert all(earlier in needs[later] for earlier, later in itertools.pairwise(path))


@given(st.lists(st.lists(st.integers(0, 9), max_size=3, unique=True), min_size=10, max_size=10))
def test_there_is_an_order_exactly_when_there_is_no_cycle(raw: list[list[int]]) -> None:
    needs = [[need for need in earlier if need != node] for node, earlier in enumerate(raw)]
    cycles = find_cycles(needs)
    assert (topological_order(needs) is None) == bool(cycles)
    for cycle in cycles:
        assert len(set(cycle)) == len(cycle) >= 2
        assert all(following in needs[this] for this, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True))


def test_independent_cycles_are_each_reported() -> None:
    pairs = [step(f"{side}{n}", needs=[f"{other}{n}"]) for n in range(3) for side, other in (("a", "b"), ("b", "a"))]
    violations = check_plan(plan(*pairs), tenant=TENANT, catalog=CATALOG).violations
    assert [(each.code, each.pointer) for each in violations] == [
        ("plan.cycle", f"/steps/{index}/needs/0") for index in (0, 2, 4)
    ]


@pytest.mark.parametrize("shape", ["chain", "star", "ring"])
def test_five_thousand_steps_are_checked_within_seconds(shape: str) -> None:
    def inputs(index: int) -> dict[str, Any]:
        earlier = {"chain": index - 1, "star": 0 if index else -1, "ring": (index - 1) % 5_000}[shape]
        return {"rows": ref(f"steps.s{earlier}#/rows")} if earlier >= 0 else {"rows": []}

    steps = [step(f"s{index}", "rows.pass", inputs=inputs(index)) for index in range(5_000)]
    started = time.perf_counter()
    result = check_plan(plan(*steps), tenant=_ROWS_TENANT, catalog=_ROWS)
    # About two seconds on an idle core; the bound leaves room for a busy machine.
    assert time.perf_counter() - started < 20
    assert result.ok == (shape != "ring")
    assert {each.code for each in result.violations} == ({"plan.cycle"} if shape == "ring" else set())


def _rows_catalog() -> Any:
    from .samples import ROWS, SampleCatalog, capability, closed

    schema = closed({"rows": ROWS}, ["rows"])
    return SampleCatalog([capability("rows.pass", input_schema=schema, output_schema=schema)])


_ROWS = _rows_catalog()
_ROWS_TENANT = tenant_for(_ROWS, bounds=Bounds(max_steps=5_000, max_depth=5_000, max_wall_time_s=30 * 86_400))


@settings(max_examples=30)
@given(st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_a_need_is_tolerated_exactly_when_every_reference_to_it_can_do_without(
    first_default: bool, second: bool, second_default: bool, declared: bool
) -> None:
    inputs = {"x": ref("steps.a#/x", **({"default": 1} if first_default else {}))}
    if second:
        inputs["y"] = {"$template": "{v}", "v": ref("steps.a#/y", **({"default": "-"} if second_default else {}))}
    steps = [step("a"), step("b", inputs=inputs, needs=["a"] if declared else [])]
    checked = check_plan(plan(*steps), tenant=TENANT, catalog=CATALOG).plan
    assert checked is not None
    expected = first_default and (second_default or not second)
    assert skeleton_of(checked).steps[1].tolerates == ((0,) if expected else ())


def test_exists_tolerates_and_bare_needs_do_not() -> None:
    asks = step("b", when={"left": ref("steps.a#/x"), "op": "exists"})
    waits = step("c", needs=["a"])
    checked = check_plan(plan(step("a"), asks, waits), tenant=TENANT, catalog=CATALOG).plan
    assert checked is not None
    assert [each.tolerates for each in skeleton_of(checked).steps] == [(), (0,), ()]


def test_the_skeleton_carries_caps_and_kinds_and_nothing_of_the_content() -> None:
    goals = ref("run#/goals")
    steps = [
        step("a", "data.query", inputs={"job": "SECRET"}, retry={"max_attempts": 5, "backoff_s": 2}),
        step(
            "m",
            "rag.search",
            inputs={"query": ref("item#")},
            for_each=goals,
            concurrency=50,
            max_items=10,
            optional=True,
        ),
        {"id": "w", "wait": {"for_s": 30}, "on_failure": "skip"},
        step("p", "ads.pause"),
        step("e", "email.send", inputs={"to": "t", "body": "b"}, compensate_with={"capability": "open.any"}),
    ]
    checked = check_plan(plan(*steps), tenant=TENANT, catalog=CATALOG).plan
    assert checked is not None
    query, search, wait, pause, mail = skeleton_of(checked).steps
    assert (query.kind, query.max_attempts, query.backoff_s) == ("call", 5, 2)
    # The tenant runs at most 32 steps at once, so no map asks for more.
    assert (search.kind, search.concurrency, search.optional) == ("map", 32, True)
    assert (wait.kind, wait.expected_s, wait.on_failure) == ("wait", 30, "skip")
    # Idempotent effects are retried, an effect nobody calls idempotent is tried once.
    assert (pause.max_attempts, mail.max_attempts) == (3, 1)
    assert "SECRET" not in str(to_wire(skeleton_of(checked)))
    assert skeleton_of(checked, max_parallel=4).max_parallel == 4
    assert skeleton_of(checked, max_parallel=4).steps[1].concurrency == 4


def test_calls_of_a_capability_that_its_manifest_bounds_share_one_cap() -> None:
    catalog = SampleCatalog([capability("narrow.one", max_parallel=2), capability("open.any")])
    goals = ref("run#/goals")
    steps = [
        step("a", "narrow.one"),
        step("b"),
        step("c", "narrow.one", inputs={"x": ref("item#")}, for_each=goals, concurrency=9, max_items=9),
    ]
    checked = check_plan(plan(*steps), tenant=tenant_for(catalog), catalog=catalog).plan
    assert checked is not None
    skeleton = skeleton_of(checked)
    assert skeleton.caps == (2,)
    assert [(each.cap, each.concurrency) for each in skeleton.steps] == [(1, 20), (0, 20), (1, 2)]
    assert from_wire(to_wire(skeleton)) == skeleton


def test_durations_come_from_the_manifest() -> None:
    fit = step("f", "mmm.fit", inputs={"rows": []})
    checked = check_plan(plan(step("a"), fit), tenant=TENANT, catalog=CATALOG)
    assert checked.plan is not None
    # 60 s of timeout make 3 s; the fit states its median, "p50 40s".
    assert [timing.expected_s for timing in checked.plan.timings] == [3.0, 40.0]
    assert (checked.critical_path, checked.critical_path_s) == (("f",), 40.0)


def test_of_two_equally_long_chains_the_earlier_written_is_critical() -> None:
    steps = [step("a"), step("b"), step("c", needs=["b", "a"]), step("d", needs=["b", "a"])]
    assert check_plan(plan(*steps), tenant=TENANT, catalog=CATALOG).critical_path == ("a", "c")
