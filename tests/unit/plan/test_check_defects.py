"""One defect per plan: each has its own code and the place of the offence, and nothing else is reported beside it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.plan import check_plan

from .samples import CATALOG, TENANT, plan, ref, step


def found(document: Any) -> list[tuple[str, str]]:
    violations = check_plan(document, tenant=TENANT, catalog=CATALOG).violations
    return [(each.code, each.pointer) for each in violations]


@pytest.mark.parametrize(
    ("document", "code", "pointer"),
    [
        pytest.param(b'{"goal": "g", "goal": "h", "steps": []}', "plan.duplicate_key", "/goal", id="duplicate-key"),
        pytest.param(
            b'{"goal": "g", "steps": [{"id": "a", "timeout_s": NaN}]}',
            "plan.not_a_number",
            "/steps/0/timeout_s",
            id="nan",
        ),
        pytest.param(b'{"goal": 9007199254740992}', "plan.number_range", "/goal", id="huge-integer"),
        pytest.param(b'{"goal": "\\ud800"}', "plan.lone_surrogate", "/goal", id="surrogate"),
        pytest.param(b"{", "plan.syntax", "", id="syntax"),
        pytest.param(b"\xff", "plan.syntax", "", id="encoding"),
        pytest.param(b'"' + b"x" * (4 * 1024 * 1024) + b'"', "plan.too_large", "", id="large"),
        pytest.param(b"[" * 100_000, "plan.too_deep", "", id="deep-text"),
        pytest.param(b"null", "plan.schema", "", id="null"),
        pytest.param([], "plan.schema", "", id="array"),
        pytest.param({"goal": "g"}, "plan.schema", "", id="no-steps"),
        pytest.param({"goal": "g", "steps": {}}, "plan.schema", "/steps", id="steps-object"),
        pytest.param(plan(), "plan.empty", "/steps", id="empty"),
        pytest.param({"steps": [step()]}, "plan.schema", "/goal", id="no-goal"),
        pytest.param(plan(step(), schema_version="2.0"), "plan.schema", "/schema_version", id="version"),
        pytest.param(plan(step(), extra=1), "plan.schema", "/extra", id="unknown-member"),
        pytest.param(plan(step(timeout=3)), "plan.schema", "/steps/0/timeout", id="unknown-step-member"),
        pytest.param(plan(step("a/b")), "plan.schema", "/steps/0/id", id="bad-id"),
        pytest.param(plan(step(optional=1)), "plan.schema", "/steps/0/optional", id="one-is-not-true"),
        pytest.param(plan(step(timeout_s="5")), "plan.schema", "/steps/0/timeout_s", id="text-is-not-number"),
        pytest.param(
            plan(step(retry={"max_attempts": True})), "plan.schema", "/steps/0/retry/max_attempts", id="true-is-not-one"
        ),
        pytest.param(
            plan(step(retry={"max_attempts": 2.0})),
            "plan.schema",
            "/steps/0/retry/max_attempts",
            id="float-is-not-integer",
        ),
        pytest.param(plan(step(max_items=3)), "plan.schema", "/steps/0", id="max-items-without-for-each"),
        pytest.param(plan(step(wait={"for_s": 1})), "plan.schema", "/steps/0", id="two-kinds"),
        pytest.param(plan({"id": "a"}), "plan.schema", "/steps/0", id="no-kind"),
        pytest.param(
            plan(step(), {"id": "w", "wait": {"for_s": 1, "until": "x"}}),
            "plan.schema",
            "/steps/1/wait",
            id="two-waits",
        ),
        pytest.param(
            plan(step(when={"left": 1, "op": "like", "right": 1})), "plan.schema", "/steps/0/when/op", id="op"
        ),
        pytest.param(plan(step(when={"left": 1, "op": "eq"})), "plan.schema", "/steps/0/when", id="no-right"),
        pytest.param(plan(step(inputs={"k" * 1001: 1})), "plan.schema", "/steps/0/inputs", id="long-name"),
        pytest.param(plan(step("a"), step("b"), step("a")), "plan.duplicate_step", "/steps/2/id", id="duplicate-step"),
        pytest.param(plan(step(needs=["z"])), "plan.unknown_reference", "/steps/0/needs/0", id="unknown-need"),
        pytest.param(
            plan(step(inputs={"x": ref("steps.z#/y")})),
            "plan.unknown_reference",
            "/steps/0/inputs/x/$ref",
            id="unknown-ref",
        ),
        pytest.param(plan(step(needs=["a"])), "plan.self_reference", "/steps/0/needs/0", id="self-need"),
        pytest.param(
            plan(step(inputs={"x": [ref("steps.a#/y")]})),
            "plan.self_reference",
            "/steps/0/inputs/x/0/$ref",
            id="self-ref",
        ),
        pytest.param(
            plan(step("a", needs=["b"]), step("b", needs=["a"])), "plan.cycle", "/steps/0/needs/0", id="cycle"
        ),
        pytest.param(
            plan(step("a", "no.such")), "plan.unknown_capability", "/steps/0/capability", id="unknown-capability"
        ),
        pytest.param(
            plan(step("a", "secret.tool")), "plan.capability_not_enabled", "/steps/0/capability", id="not-enabled"
        ),
        pytest.param(plan(step("a", "llm.write")), "plan.delivery_unavailable", "/steps/0/capability", id="llm"),
        pytest.param(
            plan(
                step("a", "data.query", inputs={"job": {"$ref": "steps.q#/because"}}),
                {"id": "q", "approval": {"question": "ok?"}},
            ),
            "plan.unknown_output",
            "/steps/0/inputs/job/$ref",
            id="approval",
        ),
        pytest.param(plan(step("a", "data.query")), "plan.input_missing", "/steps/0/inputs", id="missing"),
        pytest.param(
            plan(step("a", "data.query", inputs={"job": "j", "z/": 1})),
            "plan.input_unknown",
            "/steps/0/inputs/z~1",
            id="unknown-input",
        ),
        pytest.param(
            plan(step("a", "data.query", inputs={"job": "j", "limit": "63"})),
            "plan.input_type",
            "/steps/0/inputs/limit",
            id="text-63",
        ),
        pytest.param(
            plan(step("a", "data.query", inputs={"job": "j", "limit": True})),
            "plan.input_type",
            "/steps/0/inputs/limit",
            id="true-1",
        ),
        pytest.param(
            plan(step("a", "rag.search", inputs={"query": "q", "mode": "slow"})),
            "plan.input_enum",
            "/steps/0/inputs/mode",
            id="enum",
        ),
        pytest.param(
            plan(step("a", "mmm.fit", inputs={"rows": [], "weight": -1})),
            "plan.input_invalid",
            "/steps/0/inputs/weight",
            id="minimum",
        ),
        pytest.param(
            plan(step("a", "rag.search", inputs={"query": {"$literal": {"$ref": "x"}}})),
            "plan.input_type",
            "/steps/0/inputs/query/$literal",
            id="literal-type",
        ),
        pytest.param(
            plan(step("a", "rag.search", inputs={"query": ref("run#/intent", default=3)})),
            "plan.input_type",
            "/steps/0/inputs/query/default",
            id="default-type",
        ),
        pytest.param(
            plan(step("a", "email.send", inputs={"to": "t", "body": "b"})),
            "plan.compensation_missing",
            "/steps/0",
            id="compensation",
        ),
        pytest.param(
            plan(step(inputs={"x": {"$ref": "steps.a"}})),
            "plan.expression",
            "/steps/0/inputs/x/$ref",
            id="ref-without-hash",
        ),
        pytest.param(
            plan(step(inputs={"x": {"$ref": "run#/a~2"}})), "plan.expression", "/steps/0/inputs/x/$ref", id="bad-escape"
        ),
        pytest.param(
            plan(step(inputs={"x": {"$ref": "run#intent"}})),
            "plan.expression",
            "/steps/0/inputs/x/$ref",
            id="pointer-without-slash",
        ),
        pytest.param(
            plan(step(inputs={"x": {"$ref": 1}})), "plan.expression", "/steps/0/inputs/x/$ref", id="ref-not-text"
        ),
        pytest.param(
            plan(step(inputs={"x": {"$param": "p"}})),
            "plan.expression",
            "/steps/0/inputs/x/$param",
            id="left-over-parameter",
        ),
        pytest.param(
            plan(step(inputs={"x": {"$ref": "run#/intent", "or": 1}})),
            "plan.expression",
            "/steps/0/inputs/x/or",
            id="surplus-member",
        ),
        pytest.param(
            plan(step(inputs={"x": ref("run#/intent", default=[ref("run#/goals")])})),
            "plan.expression",
            "/steps/0/inputs/x/default",
            id="default-expression",
        ),
        pytest.param(
            plan(step(inputs={"x": {"$template": "{a} {b}", "a": 1}})),
            "plan.template_name",
            "/steps/0/inputs/x/$template",
            id="template-name",
        ),
        pytest.param(
            plan(step(inputs={"x": {"$template": "{a"}})),
            "plan.expression",
            "/steps/0/inputs/x/$template",
            id="open-brace",
        ),
        pytest.param(
            plan(step(inputs={"x": {"$template": "{a}", "a": {"b": 1}}})),
            "plan.template_type",
            "/steps/0/inputs/x/a",
            id="template-object",
        ),
        pytest.param(
            plan(step(inputs={"x": {"$template": "{a}", "a": ref("run#/goals")}})),
            "plan.template_type",
            "/steps/0/inputs/x/a",
            id="template-array",
        ),
        pytest.param(
            plan(step(inputs={"x": ref("run#/secrets")})),
            "plan.unknown_run_value",
            "/steps/0/inputs/x/$ref",
            id="run-value",
        ),
        pytest.param(
            plan(step(inputs={"x": ref("run#/context")})),
            "plan.unknown_run_value",
            "/steps/0/inputs/x/$ref",
            id="mixed-labels",
        ),
        pytest.param(
            plan(step(inputs={"x": ref("run#/intent/0")})),
            "plan.unknown_run_value",
            "/steps/0/inputs/x/$ref",
            id="into-text",
        ),
        pytest.param(
            plan(step(inputs={"x": ref("item#/a")})), "plan.item_outside_for_each", "/steps/0/inputs/x/$ref", id="item"
        ),
        pytest.param(
            plan(step(for_each=[1], when={"left": ref("item#"), "op": "eq", "right": 1})),
            "plan.item_outside_for_each",
            "/steps/0/when/left/$ref",
            id="item-in-when",
        ),
        pytest.param(
            plan(step(for_each={"a": 1})), "plan.for_each_not_array", "/steps/0/for_each", id="for-each-object"
        ),
        pytest.param(plan(step(for_each=None)), "plan.for_each_not_array", "/steps/0/for_each", id="for-each-null"),
        pytest.param(
            plan(step(for_each=ref("run#/intent"))), "plan.for_each_not_array", "/steps/0/for_each", id="for-each-text"
        ),
        pytest.param(
            plan(step(for_each=[1, 2, 3], max_items=2)), "plan.fan_out", "/steps/0/for_each", id="too-many-items"
        ),
        pytest.param(
            plan(step(for_each=[1], max_items=1_001)), "plan.fan_out", "/steps/0/max_items", id="max-items-over-tenant"
        ),
        pytest.param(
            plan(step(), {"id": "w", "wait": {"until": "tomorrow"}}),
            "plan.wait_invalid",
            "/steps/1/wait/until",
            id="until",
        ),
        pytest.param(
            plan(step(), {"id": "w", "wait": {"for_s": -1}}), "plan.wait_invalid", "/steps/1/wait/for_s", id="for"
        ),
        pytest.param(
            plan(step(), {"id": "w", "wait": {"for_s": ref("run#/intent")}}),
            "plan.wait_invalid",
            "/steps/1/wait/for_s",
            id="for-text",
        ),
        pytest.param(plan(step(), {"id": "w", "wait": {"for_s": 3_601}}), "plan.wall_time", "/steps", id="wall-time"),
        pytest.param(
            plan(step(when={"left": "a", "op": "lt", "right": 1})), "plan.when_type", "/steps/0/when", id="when-order"
        ),
        pytest.param(
            plan(step(when={"left": True, "op": "eq", "right": 1})), "plan.when_type", "/steps/0/when", id="when-bool"
        ),
        pytest.param(
            plan(step(when={"left": 1, "op": "in", "right": "123"})),
            "plan.when_type",
            "/steps/0/when",
            id="when-in-text",
        ),
        pytest.param(
            plan(step(when={"left": 1, "op": "exists"})), "plan.when_type", "/steps/0/when/left", id="exists-literal"
        ),
        pytest.param(
            plan(step(), answer={"uses": ["z"]}), "plan.answer_unknown", "/answer/uses/0", id="answer-unknown"
        ),
        pytest.param(plan(step(), answer={"uses": []}), "plan.answer_empty", "/answer/uses", id="answer-empty"),
        pytest.param(plan({"id": "w", "wait": {"for_s": 1}}), "plan.answer_empty", "", id="nothing-to-answer-from"),
        pytest.param(
            plan(step("a", "data.query", inputs={"job": "j"}), step("b", inputs={"x": ref("steps.a#/rowz")})),
            "plan.unknown_output",
            "/steps/1/inputs/x/$ref",
            id="output-part",
        ),
        pytest.param(
            plan(step("a", "data.query", inputs={"job": "j"}), step("b", inputs={"x": ref("steps.a#/rows/-")})),
            "plan.unknown_output",
            "/steps/1/inputs/x/$ref",
            id="dash-index",
        ),
        pytest.param(
            plan(step("a", "data.query", inputs={"job": "j"}), step("b", inputs={"x": ref("steps.a#/rows/01")})),
            "plan.unknown_output",
            "/steps/1/inputs/x/$ref",
            id="leading-zero",
        ),
        pytest.param(
            plan(
                step("a", "data.query", inputs={"job": "j"}),
                step("b", "rag.search", inputs={"query": ref("steps.a#/count")}),
            ),
            "plan.reference_type",
            "/steps/1/inputs/query",
            id="reference-type",
        ),
    ],
)
def test_each_defect_has_its_code_and_place(document: Any, code: str, pointer: str) -> None:
    assert found(document) == [(code, pointer)]
