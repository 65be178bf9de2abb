"""The check of a plan: what passes, and for everything that does not, its code and the place of the offence."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from engine.domain.run import RunConstraints
from engine.domain.skeleton import MAX_SKELETON_BYTES, size_bytes
from engine.domain.tenant import Bounds, PlannerRules
from engine.plan import CheckResult, check_plan, parse_checked_plan, plan_schema, skeleton_of

from .samples import CATALOG, TENANT, plan, ref, step, tenant_for

EXAMPLE: dict[str, Any] = {
    "schema_version": "1.0",
    "goal": "Why did paid-search ROI fall in Q3 and how should Q4 budget move?",
    "rationale": "fit, then look up notes",
    "steps": [
        {
            "id": "spend",
            "capability": "data.query",
            "inputs": {"job": "weekly_channel_spend", "from": ref("run#/context/values/quarter_start")},
        },
        {"id": "mmm", "capability": "mmm.fit", "inputs": {"rows": ref("steps.spend#/rows")}, "timeout_s": 900},
        {
            "id": "per_channel",
            "for_each": ref("steps.mmm#/channels"),
            "max_items": 200,
            "concurrency": 20,
            "capability": "rag.search",
            "inputs": {"query": {"$template": "budget notes on {channel}", "channel": ref("item#/name")}},
        },
        {
            "id": "tell_finance",
            "capability": "email.send",
            "needs": ["mmm"],
            "when": {"left": ref("steps.mmm#/roi_change"), "op": "lt", "right": -0.1},
            "inputs": {"to": ref("run#/context/values/finance_contact"), "body": ref("steps.mmm#/summary")},
            "compensate_with": {
                "capability": "email.send",
                "inputs": {
                    "to": ref("run#/context/values/finance_contact"),
                    "body": "Please disregard the previous note.",
                },
            },
        },
    ],
    "answer": {"uses": ["mmm", "per_channel"], "instructions": "KPIs first, then recommendation"},
}


def check(document: Any, **arguments: Any) -> CheckResult:
    return check_plan(document, tenant=arguments.pop("tenant", TENANT), catalog=CATALOG, **arguments)


def found(document: Any, **arguments: Any) -> list[tuple[str, str]]:
    result = check(document, **arguments)
    assert result.ok == (not result.violations)
    return [(each.code, each.pointer) for each in result.violations]


def test_the_plan_of_the_language_guide_passes() -> None:
    result = check(EXAMPLE)
    assert result.ok
    assert (result.steps, result.edges) == (4, 3)
    assert result.critical_path == ("spend", "mmm", "per_channel")
    assert [(each.code, each.pointer) for each in result.warnings] == [
        ("plan.edge_inferred", "/steps/1/inputs/rows/$ref"),
        ("plan.edge_inferred", "/steps/2/for_each/$ref"),
    ]
    # 1,000 for the fit and 10 for each of at most 200 searches.
    assert result.estimated_cost_micro_usd == 3_000


def test_all_errors_come_at_once_in_order_of_place() -> None:
    steps = [step(f"s{number}") for number in range(12)]
    steps[10] = step("s10", "data.query", inputs={"limit": "63"}, needs=["nobody"])
    steps[2] = step("s2", "no.such", optional="yes")
    steps[9] = step("s9", inputs={"x": ref("steps.s2#/y")})
    steps[3] = step("s3", "no.such")
    assert found(plan(*steps, answer={"uses": ["s99"]})) == [
        ("plan.answer_unknown", "/answer/uses/0"),
        ("plan.schema", "/steps/2/optional"),
        ("plan.unknown_capability", "/steps/3/capability"),
        ("plan.input_missing", "/steps/10/inputs"),
        ("plan.input_type", "/steps/10/inputs/limit"),
        ("plan.unknown_reference", "/steps/10/needs/0"),
    ]


def test_a_flood_of_errors_is_cut_and_says_so() -> None:
    violations = check(plan(step(needs=["z"] * 3_000))).violations
    assert len(violations) <= 1_001
    assert violations[-1].code == "plan.more_errors"


def test_a_cycle_is_printed() -> None:
    steps = [step("a", needs=["c"]), step("b", needs=["a"]), step("c", needs=["b"]), step("d", needs=["a"])]
    (violation,) = check(plan(*steps)).violations
    assert violation.message.endswith("a → c → b → a")


def test_an_unknown_capability_comes_with_close_names_the_tenant_may_use() -> None:
    (violation,) = check(plan(step("a", "data.qery"))).violations
    assert "'data.query'" in violation.message
    (violation,) = check(plan(step("a", "secret.tol"))).violations
    assert "secret.tool" not in violation.message


def test_messages_do_not_repeat_input_values() -> None:
    document = plan(step("a", "rag.search", inputs={"query": 1234567, "mode": "hunter2"}))
    text = json.dumps(check(document).to_json())
    assert "hunter2" not in text
    assert "1234567" not in text


@pytest.mark.parametrize(
    ("bounds", "constraints", "code"),
    [
        (Bounds(max_steps=2), None, "plan.too_many_steps"),
        (Bounds(), RunConstraints(max_steps=2), "plan.too_many_steps"),
        (Bounds(max_depth=2), None, "plan.depth"),
        (Bounds(max_cost_micro_usd=2_999), None, "plan.cost"),
        (Bounds(), RunConstraints(max_cost_micro_usd=2_999), "plan.cost"),
        (Bounds(max_wall_time_s=40), None, "plan.wall_time"),
        (Bounds(), RunConstraints(deadline_s=40), "plan.wall_time"),
        (Bounds(max_fan_out=199), None, "plan.fan_out"),
    ],
)
def test_bounds_of_the_tenant_and_of_the_request_both_hold(
    bounds: Bounds, constraints: RunConstraints | None, code: str
) -> None:
    tenant = tenant_for(CATALOG, bounds=bounds)
    assert code in {each for each, _ in found(EXAMPLE, tenant=tenant, constraints=constraints)}
    assert check(EXAMPLE, tenant=tenant_for(CATALOG)).ok


def test_a_request_cannot_loosen_the_bounds_of_its_tenant() -> None:
    tenant = tenant_for(CATALOG, bounds=Bounds(max_steps=2))
    assert not check(EXAMPLE, tenant=tenant, constraints=RunConstraints(max_steps=100)).ok


def test_the_platform_maximum_of_steps_holds_whatever_the_tenant() -> None:
    tenant = tenant_for(CATALOG, bounds=Bounds(max_steps=5_000))
    assert found(plan(*(step(f"s{number}") for number in range(5_001))), tenant=tenant) == [
        ("plan.too_many_steps", "/steps")
    ]


def test_edges_that_would_not_fit_the_orchestrator_are_refused() -> None:
    tenant = tenant_for(CATALOG, bounds=Bounds(max_steps=5_000, max_depth=5_000))
    ids = [f"s{number}" for number in range(700)]
    steps = [step(step_id, needs=ids[max(0, index - 350) : index]) for index, step_id in enumerate(ids)]
    assert found(plan(*steps), tenant=tenant) == [("plan.skeleton_too_large", "/steps")]
    fewer = check(plan(*steps[:300]), tenant=tenant)
    assert fewer.plan is not None
    assert size_bytes(skeleton_of(fewer.plan)) <= MAX_SKELETON_BYTES


def test_values_that_are_no_json_are_refused_not_crashed_on() -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    loop: list[Any] = []
    loop.append(loop)
    assert [code for code, _ in found({"goal": deep})] == ["plan.too_deep"]
    assert [code for code, _ in found({"goal": loop})] == ["plan.too_deep"]
    assert found({"goal": float("nan")}) == [("plan.not_a_number", "/goal")]
    assert found({"goal": 10**5_000}) == [("plan.number_range", "/goal")]
    assert found({"goal": {1: 2}}) == [("plan.schema", "/goal")]
    assert found({"goal": {"x"}}) == [("plan.schema", "/goal")]
    assert found({"goal": "\ud800"}) == [("plan.lone_surrogate", "/goal")]


def test_the_document_is_neither_changed_nor_kept() -> None:
    document = copy.deepcopy(EXAMPLE)
    checked = check(document).plan
    assert document == EXAMPLE
    document["steps"][0]["inputs"]["job"] = "other"
    assert checked is not None
    assert checked.plan.steps[0].inputs["job"] == "weekly_channel_spend"


def test_two_spellings_of_one_plan_have_one_hash_and_the_normal_form_is_its_own() -> None:
    first = check(EXAMPLE)
    spelled = copy.deepcopy(EXAMPLE)
    spelled["steps"][1] |= {"needs": ["spend", "spend"], "optional": False, "on_failure": "fail", "timeout_s": 900.0}
    spelled["steps"][2] |= {"needs": ["mmm"], "retry": None}
    spelled["answer"]["uses"].append("mmm")
    second = check(json.dumps(spelled, indent=2).encode())
    assert first.plan_hash == second.plan_hash
    assert first.plan is not None
    again = check(first.plan.document)
    assert again.plan_hash == first.plan_hash
    assert again.warnings == ()
    assert parse_checked_plan(json.loads(first.plan.canonical_bytes())) == first.plan.plan


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("goal",), "other"),
        (("steps", 0, "inputs", "job"), "other"),
        (("steps", 1, "timeout_s"), 901),
        (("steps", 3, "when", "right"), -0.2),
        (("answer", "instructions"), ""),
        (("answer", "uses"), ["mmm"]),
    ],
)
def test_any_change_of_meaning_changes_the_hash(path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(EXAMPLE)
    node = changed
    for token in path[:-1]:
        node = node[token]
    node[path[-1]] = value
    assert check(changed).plan_hash not in (None, check(EXAMPLE).plan_hash)


def test_without_an_answer_the_steps_nobody_needs_make_it_up() -> None:
    steps = [step("a"), step("b", needs=["a"]), step("c"), {"id": "w", "needs": ["c"], "wait": {"for_s": 1}}]
    result = check(plan(*steps))
    assert result.plan is not None
    assert result.plan.plan.answer.uses == ("b",)


def test_the_output_of_a_map_is_an_array_of_outputs() -> None:
    search = step("s", "rag.search", inputs={"query": ref("item#")}, for_each=ref("run#/goals"), max_items=5)
    assert found(plan(search, step("u", "rag.search", inputs={"query": ref("steps.s#/0/hits/0")}))) == []
    assert found(plan(search, step("u", "rag.search", inputs={"query": ref("steps.s#/hits")}))) == [
        ("plan.unknown_output", "/steps/1/inputs/query/$ref")
    ]
    assert found(plan(search, step("u", "rag.search", inputs={"query": ref("steps.s#/0")}))) == [
        ("plan.reference_type", "/steps/1/inputs/query")
    ]


def test_a_compensation_may_use_the_output_of_its_own_step() -> None:
    undo = {"capability": "email.send", "inputs": {"to": ref("steps.a#/id"), "body": "sorry"}}
    send = step("a", "email.send", inputs={"to": "t", "body": "b"}, compensate_with=undo)
    assert found(plan(send)) == []
    undo["inputs"] = {"to": ref("steps.a#/idd"), "body": 1}
    assert found(plan(send)) == [
        ("plan.input_type", "/steps/0/compensate_with/inputs/body"),
        ("plan.unknown_output", "/steps/0/compensate_with/inputs/to/$ref"),
    ]


def test_a_declared_inverse_satisfies_the_manifest_if_the_tenant_may_use_it() -> None:
    assert found(plan(step("a", "ads.pause"))) == []
    tenant = tenant_for(CATALOG, without=["ads.resume"])
    assert found(plan(step("a", "ads.pause")), tenant=tenant) == [("plan.compensation_missing", "/steps/0")]


def test_what_is_accepted_with_a_caveat_is_said() -> None:
    caveats = step(
        "a",
        "ads.pause",
        cache=True,
        on_failure="repair",
        inputs={"t": {"$template": "x", "unused": 1}},
    )
    harmful = step("b", "email.send", inputs={"to": "t", "body": "b"}, retry={"max_attempts": 5})
    harmful["compensate_with"] = {"capability": "open.any"}
    tenant = TENANT.model_copy(update={"planner": PlannerRules(max_run_repairs=0)})
    result = check(plan(caveats, harmful), tenant=tenant)
    assert result.ok
    assert "plan.on_failure_as_fail" not in {each.code for each in check(plan(caveats, harmful)).warnings}
    assert [(each.code, each.pointer) for each in result.warnings] == [
        ("plan.cache_ignored", "/steps/0/cache"),
        ("plan.template_unused", "/steps/0/inputs/t/unused"),
        ("plan.on_failure_as_fail", "/steps/0/on_failure"),
        ("plan.retry_ignored", "/steps/1/retry"),
    ]


def test_the_result_is_one_json_object() -> None:
    good = check(EXAMPLE).to_json()
    assert json.loads(json.dumps(good)) == good
    assert set(good) >= {"ok", "errors", "warnings", "steps", "edges", "critical_path", "plan_hash"}
    assert (good["ok"], good["errors"], len(good["plan_hash"])) == (True, [], 64)
    bad = check(plan()).to_json()
    assert (bad["ok"], bad["plan_hash"]) == (False, None)
    assert bad["errors"] == [{"code": "plan.empty", "pointer": "/steps", "message": "a plan has at least one step"}]


def test_the_published_schema_accepts_what_the_check_accepts() -> None:
    from jsonschema import Draft202012Validator

    schema = plan_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid(EXAMPLE)
    checked = check(EXAMPLE).plan
    assert checked is not None
    assert validator.is_valid(checked.document)
    assert not validator.is_valid(plan(step(timeout=3)))


def test_a_step_falls_back_on_what_its_manifest_names_once_more_than_its_own_attempts() -> None:
    from tests.support.world import World

    world = World()
    document = {"schema_version": "1.0", "goal": "g", "answer": {"uses": ["a"]}}
    call = {"id": "a", "capability": "calc.frail", "inputs": {"n": 1}, "on_failure": "fallback"}
    result = check_plan(
        document | {"steps": [call | {"retry": {"max_attempts": 2}}]}, tenant=world.tenant, catalog=world.deps.catalog
    )
    assert (result.ok, list(result.warnings)) == (True, [])
    assert result.plan is not None
    assert result.plan.timings[0].max_attempts == 3
    other = check_plan(
        document | {"steps": [call | {"capability": "calc.double"}]}, tenant=world.tenant, catalog=world.deps.catalog
    )
    assert [each.code for each in other.warnings] == ["plan.on_failure_as_fail"]


@pytest.mark.parametrize(
    ("manifest", "warned"),
    [
        ({"deterministic": True}, False),
        ({"deterministic": True, "side_effect": "none"}, False),
        ({"deterministic": False}, True),
        ({"deterministic": True, "side_effect": "write"}, True),
    ],
)
def test_a_step_that_asks_for_an_earlier_result_is_told_when_none_is_reused(
    manifest: dict[str, Any], warned: bool
) -> None:
    from engine.adapters.memory.catalog import MemoryCatalog
    from tests.support.world import World

    world = World()
    steady = world.deps.catalog.capabilities["calc.double"].model_copy(update=manifest)
    call = {"id": "a", "capability": "calc.double", "inputs": {"n": 1}, "cache": True}
    document = {"schema_version": "1.0", "goal": "g", "answer": {"uses": ["a"]}, "steps": [call]}
    result = check_plan(document, tenant=world.tenant, catalog=MemoryCatalog([steady]))
    warnings = [("plan.cache_ignored", "/steps/0/cache")] if warned else []
    assert [(each.code, each.pointer) for each in result.warnings] == warnings
    assert result.ok
