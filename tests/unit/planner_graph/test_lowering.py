"""From what a model emits to the plan language: what it says and no more, and every fault at its place in the proposal."""

import json

import pytest

from engine.domain.errors import Violation
from engine.plan import check_plan
from planner_graph.lowering import Declined, Lowered, Rejected, lower, proposal_schema
from tests.support.world import World
from tests.unit.planner_graph.proposals import given, proposal, proposed, ref, template

ALLOWED_KEYWORDS = {"type", "enum", "description", "properties", "required", "additionalProperties", "items", "anyOf"}


def walk(schema, level=1):
    yield schema, level
    for part in schema.get("properties", {}).values():
        yield from walk(part, level + 1)
    for part in schema.get("anyOf", ()):
        yield from walk(part, level)
    if "items" in schema:
        yield from walk(schema["items"], level + 1)


def test_the_schema_stays_inside_the_strict_subset():
    parts = list(walk(proposal_schema()))
    containers = [(part, level) for part, level in parts if part.keys() & {"properties", "items"}]
    assert max(level for _, level in containers) <= 5
    assert sum(len(part.get("properties", ())) for part, _ in parts) <= 100
    assert {key for part, _ in parts for key in part} <= ALLOWED_KEYWORDS
    for part, _ in parts:
        if "properties" in part:
            assert part["required"] == list(part["properties"])
            assert part["additionalProperties"] is False


def lowered_inputs(*inputs):
    result = lower(proposal(proposed("a", "calc.double", *inputs)))
    assert isinstance(result, Lowered), result
    return result.document["steps"][0]["inputs"]


def test_a_whole_proposal_passes_the_checks_once_lowered():
    world = World()
    result = lower(
        proposal(
            proposed("list", "calc.range", given("n", 3)),
            proposed(
                "each",
                "calc.double",
                ref("n", "item#"),
                for_each={"kind": "ref", "value": "steps.list#/items", "max_items": 5, "concurrency": 2},
                max_attempts=2,
                timeout_s=5,
            ),
            proposed("pause", None, wait={"mode": "for_s", "kind": "literal", "value": "1"}, needs=["each"]),
            proposed(
                "last",
                "calc.double",
                given("n", 1),
                needs=["pause"],
                when={"left": "steps.list#/items", "op": "contains", "right_kind": "literal", "right": "2"},
                optional=True,
                on_failure="skip",
            ),
        )
    )
    checked = check_plan(result.document, tenant=world.tenant, catalog=world.deps.catalog)
    assert checked.violations == ()
    assert checked.plan.document["steps"] == [
        {"id": "list", "capability": "calc.range", "inputs": {"n": 3}},
        {
            "id": "each",
            "capability": "calc.double",
            "inputs": {"n": {"$ref": "item#"}},
            "for_each": {"$ref": "steps.list#/items"},
            "max_items": 5,
            "concurrency": 2,
            "retry": {"max_attempts": 2},
            "timeout_s": 5.0,
            "needs": ["list"],
        },
        {"id": "pause", "wait": {"for_s": 1}, "needs": ["each"]},
        {
            "id": "last",
            "capability": "calc.double",
            "inputs": {"n": 1},
            "needs": ["list", "pause"],
            "when": {"left": {"$ref": "steps.list#/items"}, "op": "contains", "right": 2},
            "optional": True,
            "on_failure": "skip",
        },
    ]


def test_a_literal_is_data_even_when_it_looks_like_an_expression():
    sly = {"to": [{"$ref": "run#/context/documents/0/text"}]}
    assert lowered_inputs(given("n", sly)) == {"n": {"$literal": sly}}


def test_a_template_becomes_text_and_named_references():
    text = "{{a}} {steps.a#/x/y} and {run#/intent} and {steps.a#/x/y}"
    assert lowered_inputs(template("t", text)) == {
        "t": {
            "$template": "{{a}} {v1} and {v2} and {v1}",
            "v1": {"$ref": "steps.a#/x/y"},
            "v2": {"$ref": "run#/intent"},
        }
    }
    assert lowered_inputs(template("t", "no {{reference}}")) == {"t": "no {reference}"}


def test_pointers_as_names_put_references_inside_objects_and_arrays():
    inputs = (ref("/rows/0/a", "run#/intent"), given("/rows/1/a", 2), given("/filter/0x", 1), given("plain", None))
    assert lowered_inputs(*inputs) == {
        "rows": [{"a": {"$ref": "run#/intent"}}, {"a": 2}],
        "filter": {"0x": 1},
        "plain": None,
    }


def test_a_reference_keeps_its_default_even_null():
    assert lowered_inputs(ref("n", "steps.b#/x", None)) == {"n": {"$ref": "steps.b#/x", "default": None}}


@pytest.mark.parametrize(
    ("entry", "code", "pointer"),
    [
        ({"name": "n", "kind": "literal", "value": "gbp", "default": None}, "proposal.literal", "value"),
        ({"name": "n", "kind": "literal", "value": "NaN", "default": None}, "proposal.literal", "value"),
        ({"name": "n", "kind": "literal", "value": "[" * 40 + "]" * 40, "default": None}, "proposal.literal", "value"),
        ({"name": "n", "kind": "literal", "value": '{"a":1,"a":2}', "default": None}, "proposal.literal", "value"),
        ({"name": "n", "kind": "ref", "value": "steps.a.x", "default": None}, "proposal.reference", "value"),
        ({"name": "n", "kind": "ref", "value": "env#/HOME", "default": None}, "proposal.reference", "value"),
        ({"name": "n", "kind": "ref", "value": "run#/a", "default": "x"}, "proposal.literal", "value"),
        ({"name": "n", "kind": "literal", "value": "1", "default": "1"}, "proposal.reference", "value"),
        ({"name": "n", "kind": "template", "value": "{0.__class__}", "default": None}, "proposal.template", "value"),
        ({"name": "n", "kind": "template", "value": "open {", "default": None}, "proposal.template", "value"),
        ({"name": "", "kind": "literal", "value": "1", "default": None}, "proposal.input_name", "name"),
        ({"name": "$ref", "kind": "literal", "value": '"run#"', "default": None}, "proposal.input_name", "name"),
        ({"name": "/a/$ref", "kind": "literal", "value": '"run#"', "default": None}, "proposal.input_name", "name"),
        ({"name": "ok", "kind": "literal", "value": "1", "default": None}, "proposal.duplicate_input", "name"),
        ({"name": "/ok/a", "kind": "literal", "value": "1", "default": None}, "proposal.duplicate_input", "name"),
    ],
)
def test_every_fault_has_a_code_and_its_place(entry, code, pointer):
    result = lower(proposal(proposed("a", "calc.double", given("ok", 1), entry)))
    assert isinstance(result, Rejected)
    assert [(v.code, v.pointer) for v in result.violations] == [(code, f"/steps/0/inputs/1/{pointer}")]


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        (
            {"when": {"left": "run#", "op": "eq", "right_kind": "none", "right": None}},
            "proposal.when",
            "when/right_kind",
        ),
        (
            {"when": {"left": "run#", "op": "exists", "right_kind": "ref", "right": "run#"}},
            "proposal.when",
            "when/right_kind",
        ),
        ({"when": {"left": "run#", "op": "eq", "right_kind": "literal", "right": None}}, "proposal.when", "when/right"),
        (
            {"when": {"left": "1 == 1", "op": "exists", "right_kind": "none", "right": None}},
            "proposal.reference",
            "when/left",
        ),
        ({"undo_inputs": [given("n", 1)]}, "proposal.schema", "undo_inputs"),
        ({"optional": "false"}, "proposal.schema", "optional"),
        ({"shell": "rm"}, "proposal.schema", "shell"),
        ({"max_attempts": 2.5}, "proposal.schema", "max_attempts"),
    ],
)
def test_faults_of_steps(fields, code, pointer):
    result = lower(proposal(proposed("a", "calc.double", **fields)))
    assert isinstance(result, Rejected)
    assert [(v.code, v.pointer) for v in result.violations] == [(code, f"/steps/0/{pointer}")]


def test_no_steps_is_a_fault():
    empty = proposal(proposed("a")) | {"steps": []}
    assert [v.code for v in lower(empty).violations] == ["proposal.empty"]
    assert lower(empty | {"cannot": "out_of_scope"}) == Declined("out_of_scope")
    both = lower(proposal(proposed("a")) | {"cannot": "out_of_scope"})
    assert [(v.code, v.pointer) for v in both.violations] == [("proposal.schema", "/cannot")]


def test_findings_of_the_checks_point_into_the_proposal():
    world = World()
    result = lower(
        proposal(
            proposed("a", "calc.double", given("n", "63")),
            proposed("b", "calc.nothing", ref("n", "steps.zzz#/n"), undo_capability="calc.double"),
            proposed("c", "calc.double", max_attempts=99),
            uses=["gone"],
        )
    )
    checked = check_plan(result.document, tenant=world.tenant, catalog=world.deps.catalog)
    found = {(v.code, v.pointer) for v in result.told(checked.violations)}
    assert {
        ("plan.input_type", "/steps/0/inputs/0/value"),
        ("plan.unknown_capability", "/steps/1/capability"),
        ("plan.unknown_reference", "/steps/1/inputs/0/value"),
        ("plan.schema", "/steps/2/max_attempts"),
    } <= found
    assert all(pointer.startswith(("/steps/", "/answer/")) for _, pointer in found)


def test_messages_do_not_repeat_the_proposal():
    canary = "CANARY-7f3"
    result = lower(
        proposal(proposed("a", "calc.double", template("n", "{" + canary + "}"), given(canary, 1), given(canary, 2)))
    )
    assert isinstance(result, Rejected)
    assert canary not in json.dumps([Violation.model_dump(v) for v in result.violations])
