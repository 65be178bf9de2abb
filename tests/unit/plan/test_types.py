"""Reference types: a certain misfit is found, and nothing that could work is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from engine.plan import check_plan
from engine.plan.contracts import schema_errors, validate_inputs, validate_output
from engine.plan.holes import Hole
from engine.plan.schema_view import view_of_schema

from .samples import SampleCatalog, capability, closed, plan, ref, step, tenant_for

TEXT = {"type": "string"}
OBJECT = closed({"a": TEXT}, ["a"])


def codes(produced: Any, wanted: Any, pointer: str = "/v") -> list[str]:
    """The codes of a plan in which what a step produces goes where another wants it."""
    catalog = SampleCatalog(
        [
            capability("the.producer", output_schema=closed({"v": produced}, ["v"])),
            capability("the.consumer", input_schema=closed({"v": wanted}, ["v"])),
        ]
    )
    steps = [step("p", "the.producer"), step("c", "the.consumer", inputs={"v": ref(f"steps.p#{pointer}")})]
    result = check_plan(plan(*steps), tenant=tenant_for(catalog), catalog=catalog)
    return [each.code for each in result.violations]


@pytest.mark.parametrize(
    ("produced", "wanted"),
    [
        pytest.param({"type": "integer"}, TEXT, id="integer-for-text"),
        pytest.param({"type": "boolean"}, {"type": "integer"}, id="boolean-for-integer"),
        pytest.param({"type": ["string", "null"]}, {"type": ["array", "object"]}, id="no-common-type"),
        pytest.param({"enum": ["a", "b"]}, {"enum": ["c"]}, id="disjoint-enums"),
        pytest.param({"const": 1}, {"const": True}, id="one-is-not-true"),
        pytest.param({"const": "x"}, {"type": "number"}, id="constant-of-other-type"),
        pytest.param({"type": "integer", "maximum": 3}, {"minimum": 4}, id="too-small"),
        pytest.param({"type": "string", "minLength": 9}, {"maxLength": 8}, id="too-long"),
        pytest.param({"type": "array", "items": OBJECT}, {"type": "array", "items": TEXT}, id="elements"),
        pytest.param(
            closed({"n": {"type": "integer"}}), {"type": "object", "properties": {"n": TEXT}}, id="member-type"
        ),
        pytest.param(closed({"n": TEXT}), {"type": "object", "required": ["m"]}, id="member-that-never-is"),
        pytest.param(closed({"n": TEXT, "x": TEXT}, ["x"]), closed({"n": TEXT}), id="member-too-many"),
        pytest.param({"anyOf": [{"type": "integer"}, {"type": "null"}]}, TEXT, id="every-alternative"),
        pytest.param({"allOf": [{}, {"type": "integer"}]}, TEXT, id="all-of"),
        pytest.param({"type": "integer"}, {"anyOf": [TEXT, {"type": "array"}]}, id="no-alternative-wanted"),
        pytest.param({"type": "integer"}, {"oneOf": [TEXT, {"type": "array"}]}, id="no-one-of-wanted"),
        pytest.param({"type": "integer"}, False, id="nothing-wanted"),
        pytest.param({"type": "integer"}, {"$ref": "#/properties/v/$defs/t", "$defs": {"t": TEXT}}, id="wanted-by-ref"),
        pytest.param(
            {"$ref": "#/properties/v/$defs/t", "$defs": {"t": {"type": "integer"}}}, TEXT, id="produced-by-ref"
        ),
    ],
)
def test_a_certain_misfit_is_an_error(produced: Any, wanted: Any) -> None:
    assert codes(produced, wanted) == ["plan.reference_type"]


@pytest.mark.parametrize(
    ("produced", "wanted"),
    [
        pytest.param({}, TEXT, id="nothing-known"),
        pytest.param(True, TEXT, id="anything"),
        pytest.param(TEXT, TEXT, id="same"),
        pytest.param({"type": "number"}, {"type": "integer"}, id="a-number-may-be-an-integer"),
        pytest.param({"type": "integer"}, {"type": "number"}, id="integers-are-numbers"),
        pytest.param({"type": ["string", "null"]}, TEXT, id="may-be-null"),
        pytest.param({"anyOf": [{"type": "integer"}, TEXT]}, TEXT, id="one-alternative-fits"),
        pytest.param({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, id="overlapping-enums"),
        pytest.param(TEXT, {"enum": ["a"]}, id="may-be-one-of"),
        pytest.param(TEXT, {"type": "string", "pattern": "^a"}, id="patterns-wait"),
        pytest.param({"type": "object"}, OBJECT, id="open-object"),
        pytest.param({"type": "array"}, {"type": "array", "items": TEXT}, id="open-array"),
        pytest.param({"type": "integer", "maximum": 3}, {"minimum": 3}, id="touching"),
        pytest.param(TEXT, {"not": {"type": "string"}}, id="not-waits"),
        pytest.param(TEXT, {"if": {"type": "string"}, "then": False}, id="if-waits"),
        pytest.param({"$ref": "https://elsewhere.test/x"}, TEXT, id="foreign-ref"),
        pytest.param({"$ref": "#/properties/v"}, TEXT, id="endless-ref"),
        pytest.param(
            closed({"n": {"type": "integer"}}), {"type": "object", "additionalProperties": False}, id="optional-surplus"
        ),
    ],
)
def test_what_could_fit_passes(produced: Any, wanted: Any) -> None:
    assert codes(produced, wanted) == []


@pytest.mark.parametrize(
    "keyword",
    [
        {"uniqueItems": True},
        {"contains": {"const": "z"}},
        {"maxContains": 0, "contains": {"type": "integer"}},
        {"unevaluatedItems": False},
        {"enum": [["x", 2], ["a", 1]]},
        {"const": ["x", 2]},
        {"not": {"const": ["x", 2]}},
    ],
)
def test_an_array_with_a_hole_passes_whatever_could_still_turn_out_well(keyword: dict[str, Any]) -> None:
    consumer = capability("the.consumer", input_schema={"properties": {"v": keyword}})
    catalog = SampleCatalog([consumer])
    steps = [step("c", "the.consumer", inputs={"v": ["x", ref("run#/context/values/any")]})]
    assert check_plan(plan(*steps), tenant=tenant_for(catalog), catalog=catalog).violations == ()


def test_an_array_with_a_hole_that_cannot_equal_any_choice_is_refused() -> None:
    consumer = capability("the.consumer", input_schema={"properties": {"v": {"enum": [["x", 2], ["y", "t"]]}}})
    catalog = SampleCatalog([consumer])
    steps = [step("c", "the.consumer", inputs={"v": ["x", ref("run#/intent")]})]
    violations = check_plan(plan(*steps), tenant=tenant_for(catalog), catalog=catalog).violations
    assert [(each.code, each.pointer) for each in violations] == [("plan.input_enum", "/steps/0/inputs/v")]


@pytest.mark.parametrize(
    ("produced", "pointer", "known"),
    [
        (OBJECT, "/v/a", True),
        (OBJECT, "/v/b", False),
        ({"type": "object", "properties": {"a": TEXT}}, "/v/b", False),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": True}, "/v/b", True),
        ({"type": "object", "properties": {"a": TEXT}, "patternProperties": {"^b": TEXT}}, "/v/b", True),
        ({"type": "object"}, "/v/b/c/0", True),
        ({"allOf": [{"properties": {"a": TEXT}}, {"properties": {"b": TEXT}}], "type": "object"}, "/v/b", True),
        ({"anyOf": [OBJECT, {"type": "null"}]}, "/v/a", True),
        ({"anyOf": [OBJECT, {"type": "null"}]}, "/v/b", False),
        (TEXT, "/v/0", False),
        ({"type": "array", "items": OBJECT}, "/v/0/a", True),
        ({"type": "array", "items": OBJECT}, "/v/a", False),
        ({"type": "array", "maxItems": 2}, "/v/2", False),
        ({"type": "array", "prefixItems": [TEXT], "items": False}, "/v/0", True),
        ({"type": "array", "prefixItems": [TEXT], "items": False}, "/v/1", False),
    ],
)
def test_a_pointer_must_lead_to_something_the_output_can_have(produced: Any, pointer: str, known: bool) -> None:
    assert codes(produced, {}, pointer) == ([] if known else ["plan.unknown_output"])


def test_types_are_followed_into_parts() -> None:
    produced = {"type": "array", "items": closed({"n": {"type": "integer"}})}
    assert codes(produced, TEXT, "/v/3/n") == ["plan.reference_type"]
    assert codes(produced, {"type": "integer"}, "/v/3/n") == []


leaf = st.sampled_from(
    [
        {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "null"}, {"type": "boolean"}, {},
        {"enum": ["a", 1, None]}, {"const": 2}, {"type": "integer", "minimum": 2}, {"type": "number", "maximum": 1},
        {"type": "string", "minLength": 2}, {"type": "string", "maxLength": 1}, {"type": ["string", "integer"]},
    ]
)  # fmt: skip
schemas = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.builds(lambda i: {"type": "array", "items": i}, inner),
        st.builds(lambda i, n: {"type": "array", "items": i, "minItems": n}, inner, st.integers(0, 2)),
        st.builds(
            lambda a, b, need, more: {"type": "object", "properties": {"a": a, "b": b}, "required": need} | more,
            inner, inner, st.sampled_from([[], ["a"], ["a", "b"]]), st.sampled_from([{}, {"additionalProperties": False}]),
        ),
        st.builds(lambda x, y: {"anyOf": [x, y]}, inner, inner),
        st.builds(lambda x, y: {"oneOf": [x, y]}, inner, inner),
        st.builds(lambda x, y: {"allOf": [x, y]}, inner, inner),
        st.builds(lambda x: {"not": x}, inner),
    ),
    max_leaves=4,
)  # fmt: skip
values = st.recursive(
    st.sampled_from(["", "a", "bb", 0, 1, 2, 3, 1.5, 2.0, True, False, None]),
    lambda inner: st.lists(inner, min_size=1, max_size=2) | st.builds(lambda a, b: {"a": a, "b": b}, inner, inner),
    max_leaves=4,
)


@given(schemas, schemas, values)
def test_a_misfit_is_never_claimed_of_schemas_that_share_a_full_value(produced: Any, wanted: Any, value: Any) -> None:
    """Full: no empty array and no absent member, which are the one excuse that does not count."""
    if not (Draft202012Validator(produced).is_valid(value) and Draft202012Validator(wanted).is_valid(value)):
        return
    consumer = capability("the.consumer", input_schema={"properties": {"v": wanted}})
    from engine.plan.holes import HoledDict

    errors = schema_errors(consumer, "input", HoledDict(v=Hole(view_of_schema(produced))))
    assert errors == []


@given(schemas, values, st.data())
def test_a_hole_that_knows_nothing_never_makes_inputs_worse(wanted: Any, value: Any, data: st.DataObject) -> None:
    """Where the value itself is valid, the same value with any part unknown is accepted."""
    if not Draft202012Validator(wanted).is_valid(value):
        return
    consumer = capability("the.consumer", input_schema={"properties": {"v": wanted}})
    from engine.plan.holes import HoledDict, HoledList, has_hole

    def punch(node: Any) -> Any:
        if data.draw(st.integers(0, 2)) == 0:
            return Hole(view_of_schema(True))
        if isinstance(node, list):
            elements = [punch(element) for element in node]
            return HoledList(elements) if any(map(has_hole, elements)) else elements
        if isinstance(node, dict):
            members = {key: punch(member) for key, member in node.items()}
            return HoledDict(members) if any(map(has_hole, members.values())) else members
        return node

    assert schema_errors(consumer, "input", HoledDict(v=punch(value))) == []


@given(schemas, values)
def test_bound_inputs_and_outputs_are_judged_as_the_standard_says(schema: Any, value: Any) -> None:
    valid = Draft202012Validator(schema).is_valid(value)
    both = capability(
        "any.one", input_schema={"properties": {"v": schema}}, output_schema={"properties": {"v": schema}}
    )
    assert (validate_inputs(both, {"v": value}) == ()) == valid
    assert (validate_output(both, {"v": value}) == ()) == valid


def test_violations_of_bound_values_name_kind_and_place_and_no_value() -> None:
    one = capability(
        "any.one",
        input_schema=closed(
            {
                "n": {"type": "integer"},
                "e": {"enum": ["x"]},
                "l": {"type": "array", "items": TEXT},
                "p": {"pattern": "^a$"},
            },
            ["m"],
        ),
    )
    inputs = {"n": "63-secret", "e": "secret", "l": ["a", 4711], "z": "secret", "p": "secret"}
    violations = validate_inputs(one, inputs)
    assert sorted((each.code, each.pointer) for each in violations) == [
        ("input.enum", "/e"),
        ("input.invalid", "/p"),
        ("input.missing", ""),
        ("input.type", "/l/1"),
        ("input.type", "/n"),
        ("input.unknown", "/z"),
    ]
    assert not any(word in each.message for each in violations for word in ("secret", "4711"))


def test_a_value_too_deep_for_the_validator_is_refused() -> None:
    value: Any = 1
    for _ in range(5_000):
        value = {"a": value}
    recursive = capability("any.one", output_schema={"type": "object", "properties": {"a": {"$ref": "#"}}})
    assert [each.code for each in validate_output(recursive, value)] == ["output.too_deep"]


def test_long_text_is_not_tried_against_a_pattern() -> None:
    one = capability("any.one", input_schema={"properties": {"p": {"pattern": "^(a|a)*$"}}})
    assert [each.code for each in validate_inputs(one, {"p": "a" * 10_001})] == ["input.invalid"]
    assert validate_inputs(one, {"p": "a" * 20}) == ()


def test_unique_items_are_found_in_linear_time() -> None:
    one = capability("any.one", input_schema={"properties": {"l": {"uniqueItems": True}}})
    assert validate_inputs(one, {"l": [{"n": number} for number in range(20_000)]}) == ()
    assert [each.code for each in validate_inputs(one, {"l": [{"n": 1, "m": 2}, {"m": 2.0, "n": 1}]})] == [
        "input.invalid"
    ]
    assert validate_inputs(one, {"l": [1, True, "1", [1]]}) == ()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"$ref": "https://elsewhere.test/schema.json"},
        {"$ref": "#"},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
    ],
)
def test_a_broken_manifest_refuses_its_calls(schema: dict[str, Any]) -> None:
    broken = capability("any.one", input_schema=schema)
    assert [each.code for each in validate_inputs(broken, {"a": 1})] == ["input.schema_broken"]
    catalog = SampleCatalog([broken])
    result = check_plan(plan(step("s", "any.one")), tenant=tenant_for(catalog), catalog=catalog)
    assert [(each.code, each.pointer) for each in result.violations] == [
        ("plan.capability_schema", "/steps/0/capability")
    ]


def test_two_catalogues_may_use_one_name_for_different_things() -> None:
    text = capability("any.one", input_schema={"properties": {"v": TEXT}})
    number = capability("any.one", input_schema={"properties": {"v": {"type": "number"}}})
    for _ in range(2):
        assert validate_inputs(text, {"v": "x"}) == ()
        assert validate_inputs(number, {"v": 1}) == ()
        assert validate_inputs(number, {"v": "x"}) != ()
