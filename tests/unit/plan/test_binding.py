"""Binding: references become values exactly, nothing that was put in is read again, and what comes out is bounded."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.plan import When
from engine.plan import (
    ABSENT,
    BindingEnvironment,
    Bound,
    Step,
    Unbound,
    bind_compensation,
    bind_for_each,
    bind_inputs,
    bind_wait,
    evaluate_when,
    referenced_steps,
)
from engine.plan.pointers import NOWHERE, parse_pointer, resolve

from .samples import ref, step

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RUN = {
    "intent": "why did ROI fall?",
    "goals": ["explain", "advise"],
    "context": {
        "values": {"n": 3, "a/b": {"~": "tilde"}, "": "empty"},
        "documents": [{"name": "d", "text": "{n} text"}],
    },
}
OUTPUTS: dict[str, Any] = {
    "a": {"rows": [{"x": 1}, {"x": None}], "text": "{n}", "trap": {"$ref": "run#/intent"}, "deep": [[[]]]},
    "skipped": ABSENT,
}


def environment(**members: Any) -> BindingEnvironment:
    return BindingEnvironment(**{"run": RUN, "outputs": OUTPUTS, **members})


def bind(value: Any, **members: Any) -> Any:
    """The bound value of one input, or (code, pointer, reason)."""
    result = bind_inputs(Step.model_validate(step("s", inputs={"v": value})), environment(**members))
    return result.inputs["v"] if isinstance(result, Bound) else (result.code, result.pointer, result.reason)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"k": [1, "x", None, True]}, {"k": [1, "x", None, True]}),
        (ref("run#/intent"), RUN["intent"]),
        (ref("run#/goals/1"), "advise"),
        (ref("run#/context/values/n"), 3),
        (ref("run#/context/values/a~1b/~0"), "tilde"),
        (ref("run#/context/values/"), "empty"),
        (ref("run#/context/documents/0/name"), "d"),
        (ref("steps.a#/rows/1"), {"x": None}),
        (ref("steps.a#/rows/1/x"), None),
        (ref("steps.a#/rows/1/x", default=5), None),
        (ref("steps.a#/nothing", default=5), 5),
        (ref("steps.skipped#/x", default=None), None),
        (ref("steps.unheard#", default="d"), "d"),
        ({"$literal": {"$ref": "run#/intent"}}, {"$ref": "run#/intent"}),
        (ref("steps.a#/trap"), {"$ref": "run#/intent"}),
        ([{"deep": ref("steps.a#/rows/0/x")}], [{"deep": 1}]),
        ({"$template": "no names, {{braces}}"}, "no names, {braces}"),
        ({"$template": "{a}-{b}-{a}", "a": 1, "b": {"$literal": "x"}}, "1-x-1"),
        ({"$template": "{a} {b} {c} {d}", "a": True, "b": 2.5, "c": "é", "d": -1}, "true 2.5 é -1"),
        ({"$template": "{a}{b}", "a": ref("steps.a#/text"), "b": ref("run#/context/documents/0/text")}, "{n}{n} text"),
        ({"$template": "{outer}", "outer": {"$template": "<{inner}>", "inner": ref("run#/goals/0")}}, "<explain>"),
        ({"$template": "{x}", "x": ref("steps.skipped#/x", default="-")}, "-"),
    ],
)
def test_expressions_become_their_values(value: Any, expected: Any) -> None:
    assert bind(value) == expected


@pytest.mark.parametrize(
    ("value", "trouble"),
    [
        (ref("run#/context/values/absent"), ("bind.missing", "/inputs/v", "missing")),
        (ref("steps.a#/rows/2"), ("bind.missing", "/inputs/v", "missing")),
        (ref("steps.a#/rows/-"), ("bind.missing", "/inputs/v", "missing")),
        (ref("steps.a#/rows/00"), ("bind.missing", "/inputs/v", "missing")),
        (ref("steps.a#/text/0"), ("bind.missing", "/inputs/v", "missing")),
        ([ref("steps.skipped#/x")], ("bind.no_output", "/inputs/v/0", "skipped")),
        (ref("steps.unheard#"), ("bind.no_output", "/inputs/v", "skipped")),
        (ref("item#/x"), ("bind.missing", "/inputs/v", "missing")),
        ({"$template": "{x}", "x": ref("steps.a#/rows")}, ("bind.template_type", "/inputs/v/x", "invalid")),
        ({"$template": "{x}", "x": None}, ("bind.template_type", "/inputs/v/x", "invalid")),
        ({"$template": "{x}", "x": ref("steps.skipped#")}, ("bind.no_output", "/inputs/v/x", "skipped")),
        ({"$param": "x"}, ("bind.expression", "/inputs/v/$param", "invalid")),
    ],
)
def test_what_does_not_come_together_says_why_and_where(value: Any, trouble: tuple[str, str, str]) -> None:
    assert bind(value) == trouble


def test_the_step_without_output_is_named() -> None:
    result = bind_inputs(Step.model_validate(step("s", inputs={"v": ref("steps.skipped#/x")})), environment())
    assert isinstance(result, Unbound)
    assert result.step_id == "skipped"


def test_an_item_is_what_item_refers_to() -> None:
    assert bind({"n": ref("item#/name"), "all": ref("item#")}, item={"name": "x"}) == {"n": "x", "all": {"name": "x"}}
    assert bind(ref("item#"), item=None) is None
    assert bind(ref("item#/name", default="d"), item={}) == "d"


def test_shared_outputs_cannot_multiply_beyond_the_bound() -> None:
    big = {"x": "y" * 1_000_000}
    many = {f"k{number}": ref("steps.big#") for number in range(5_000)}
    text = {"$template": "{a}" * 5_000, "a": ref("steps.big#/x")}
    started = time.perf_counter()
    for value in (many, text, [many, text]):
        code, _, reason = bind(value, outputs={"big": big}, max_bytes=3_000_000)
        assert (code, reason) == ("bind.too_large", "invalid")
    assert time.perf_counter() - started < 5
    assert bind(ref("steps.big#"), outputs={"big": big}, max_bytes=1_100_000) == big


@given(
    st.recursive(st.text() | st.integers(-9, 9) | st.none(), lambda i: st.lists(i) | st.dictionaries(st.text("ab"), i))
)
def test_bound_inputs_never_exceed_the_limit_they_were_given(value: Any) -> None:
    limit = 60
    result = bind({"$literal": value}, max_bytes=limit)
    if result == value:
        assert (
            len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")) <= limit
        )
    else:
        assert result == ("bind.too_large", "/inputs/v", "invalid")


def test_bound_inputs_are_at_most_64_levels_deep() -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    # The inputs object is the first level.
    assert bind(ref("steps.d#"), outputs={"d": nested(63)}) == nested(63)
    assert bind(ref("steps.d#"), outputs={"d": nested(64)}) == ("bind.too_deep", "/inputs/v", "invalid")
    twice = {"shallow": ref("steps.d#"), "deeper": [[ref("steps.d#")]]}
    assert bind(twice, outputs={"d": nested(61)}) == ("bind.too_deep", "/inputs/v/deeper/0/0", "invalid")


tokens = st.lists(st.text(st.sampled_from("ab~/01-"), max_size=3), max_size=4)


@given(tokens)
def test_a_pointer_reads_back_the_tokens_it_was_written_from(parts: list[str]) -> None:
    text = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
    assert parse_pointer(text) == tuple(parts)
    value: Any = "found"
    for part in reversed(parts):
        value = {part: value}
    assert resolve(value, tuple(parts)) == "found"


@pytest.mark.parametrize("text", ["a", "~", "/~", "/~2", "/a~", "#/a"])
def test_what_is_no_pointer_is_none(text: str) -> None:
    assert parse_pointer(text) is None


@pytest.mark.parametrize("token", ["-", "-1", "+1", "01", "1e0", "", "٣", "2", "9" * 30])
def test_only_plain_indexes_lead_into_an_array(token: str) -> None:
    assert resolve(["x", "y"], (token,)) is NOWHERE


@pytest.mark.parametrize(
    ("for_each", "expected"),
    [
        ([1, ref("run#/goals/0")], [1, "explain"]),
        (ref("steps.a#/rows"), [{"x": 1}, {"x": None}]),
        (ref("steps.skipped#/rows", default=[]), []),
        (ref("steps.skipped#/rows"), "bind.no_output"),
        (ref("steps.a#/missing"), "bind.missing"),
        (ref("steps.a#/text"), "bind.not_array"),
        (ref("run#/goals", default=[]), ["explain", "advise"]),
        ([1, 2, 3], "bind.too_many_items"),
    ],
)
def test_a_map_goes_over_an_array(for_each: Any, expected: Any) -> None:
    result = bind_for_each(Step.model_validate(step(for_each=for_each, max_items=2)), environment())
    assert (result.code if isinstance(result, Unbound) else result) == expected


def test_the_platform_bounds_every_map() -> None:
    one = Step.model_validate(step(for_each=ref("steps.big#")))
    assert isinstance(bind_for_each(one, environment(outputs={"big": [0] * 10_000})), list)
    result = bind_for_each(one, environment(outputs={"big": [0] * 10_001}))
    assert isinstance(result, Unbound)
    assert result.code == "bind.too_many_items"


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        ({"for_s": 90}, NOW + timedelta(seconds=90)),
        ({"for_s": 0.5}, NOW + timedelta(milliseconds=500)),
        ({"for_s": ref("run#/context/values/n")}, NOW + timedelta(seconds=3)),
        ({"for_s": ref("run#/intent")}, None),
        ({"for_s": True}, None),
        ({"for_s": -1}, None),
        ({"for_s": 30 * 86_400 + 1}, None),
        ({"until": "2026-11-22T14:30:00+02:00"}, NOW + timedelta(minutes=30)),
        ({"until": "2026-11-22t12:00:00.123456789z"}, NOW + timedelta(microseconds=123456)),
        ({"until": "2020-01-01T00:00:00Z"}, datetime(2020, 1, 1, tzinfo=UTC)),
        ({"until": "2026-11-22T14:30:00"}, None),
        ({"until": "2026-13-22T14:30:00Z"}, None),
        ({"until": "2027-11-22T14:30:00Z"}, None),
        ({"until": "9999-12-31T23:59:59-14:00"}, None),
        ({"until": "0001-01-01T00:00:00+14:00"}, None),
        ({"until": ref("run#/context/values/n")}, None),
    ],
)
def test_a_wait_ends_at_an_instant(wait: dict[str, Any], expected: datetime | None) -> None:
    result = bind_wait(Step.model_validate({"id": "w", "wait": wait}), environment(), NOW)
    if expected is None:
        assert isinstance(result, Unbound)
        assert (result.code, result.reason) == ("bind.wait_invalid", "invalid")
    else:
        assert result == expected
        assert result.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("left", "op", "right", "expected"),
    [
        (1, "eq", 1.0, True),
        (1, "eq", True, "when.type_mismatch"),
        ("1", "eq", 1, "when.type_mismatch"),
        (None, "eq", 1, False),
        (None, "ne", 1, True),
        (None, "eq", None, True),
        ({"a": [1]}, "eq", {"a": [1.0]}, True),
        ({"a": [1]}, "ne", {"a": [True]}, True),
        (-0.2, "lt", -0.1, True),
        (2, "ge", 2.0, True),
        (True, "lt", 2, "when.type_mismatch"),
        ("a", "lt", "b", True),
        ("Z", "gt", "a", False),
        ("1", "gt", 0, "when.type_mismatch"),
        (None, "lt", 0, "when.type_mismatch"),
        ([1], "lt", [2], "when.type_mismatch"),
        (2, "in", [1, 2.0], True),
        (True, "in", [1], False),
        ("a", "in", "abc", "when.type_mismatch"),
        ([1, {"x": 2}], "contains", {"x": 2.0}, True),
        ("abc", "contains", "b", True),
        ("abc", "contains", 1, "when.type_mismatch"),
        ({"a": 1}, "contains", "a", "when.type_mismatch"),
        (ref("steps.a#/rows/0/x"), "le", ref("run#/context/values/n"), True),
        (ref("steps.skipped#/x"), "eq", 1, "bind.no_output"),
        (ref("steps.skipped#/x", default=1), "eq", 1, True),
        (ref("steps.a#/nope"), "eq", 1, "bind.missing"),
        ({"$template": "{g}!", "g": ref("run#/goals/0")}, "eq", "explain!", True),
    ],
)
def test_conditions_are_typed(left: Any, op: str, right: Any, expected: Any) -> None:
    result = evaluate_when(When.model_validate({"left": left, "op": op, "right": right}), environment())
    assert (result.code if isinstance(result, Unbound) else result) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("steps.a#/rows/1/x", True),
        ("steps.a#/rows/2", False),
        ("steps.skipped#", False),
        ("run#/context/values/n", True),
    ],
)
def test_exists_asks_and_never_fails(target: str, expected: bool) -> None:
    assert evaluate_when(When.model_validate({"left": ref(target), "op": "exists"}), environment()) is expected


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
    max_leaves=4,
)


@given(anything, st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "in", "contains"]), anything)
def test_a_comparison_is_true_false_or_a_code_and_never_an_exception(left: Any, op: str, right: Any) -> None:
    result = evaluate_when(
        When.model_validate({"left": {"$literal": left}, "op": op, "right": {"$literal": right}}), environment()
    )
    assert isinstance(result, bool) or result.code == "when.type_mismatch"
    opposite = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "le": "gt", "gt": "le"}.get(op)
    if opposite is not None and isinstance(result, bool):
        other = When.model_validate({"left": {"$literal": left}, "op": opposite, "right": {"$literal": right}})
        assert evaluate_when(other, environment()) is not result


def test_the_steps_a_step_refers_to_are_named_once_and_sorted() -> None:
    one = Step.model_validate(
        step(
            "s",
            for_each=ref("steps.m#/list"),
            needs=["only.order"],
            when={"left": ref("steps.b#"), "op": "eq", "right": {"$template": "{x}", "x": ref("steps.c#/d")}},
            inputs={"x": [ref("steps.b#/1"), {"$literal": ref("steps.no#")}, ref("run#/intent"), ref("item#")]},
            compensate_with={"capability": "x.y", "inputs": {"id": ref("steps.s#/id")}},
        )
    )
    assert referenced_steps(one) == ("b", "c", "m")
    assert referenced_steps(Step.model_validate({"id": "w", "wait": {"for_s": ref("steps.a#/s")}})) == ("a",)


def test_a_compensation_sees_the_output_of_its_own_step() -> None:
    undo = {"capability": "x.y", "inputs": {"id": ref("steps.s#/id"), "why": ref("run#/intent")}}
    one = Step.model_validate(step("s", compensate_with=undo))
    assert bind_compensation(one, {"id": 7}, environment()) == Bound({"id": 7, "why": RUN["intent"]})
    result = bind_compensation(one, {}, environment())
    assert isinstance(result, Unbound)
    assert (result.code, result.pointer) == ("bind.missing", "/compensate_with/inputs/id")
