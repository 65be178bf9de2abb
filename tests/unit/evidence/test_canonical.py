"""The canonical form: one spelling per value, and a refusal with its place for whatever has none."""

from __future__ import annotations

import json
import math
import sys
from enum import IntEnum, StrEnum

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import LivoaError
from engine.domain.strict_json import MAX_INTEGER
from engine.evidence import canonical_bytes, canonical_sha256

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def as_number(text: str) -> int | float:
    """How a reader that keeps doubles reads a whole number: large doubles are written without a point."""
    return int(text) if abs(int(text)) <= MAX_INTEGER else float(text)


@given(JSON)
def test_the_form_reads_back_as_the_same_value_and_is_its_own_form(value: object) -> None:
    form = canonical_bytes(value)
    again = json.loads(form, parse_int=as_number)
    assert again == value
    assert canonical_bytes(again) == form


@given(
    JSON | st.recursive(st.none() | st.booleans() | INTEGERS | TEXT, lambda i: st.dictionaries(TEXT, i) | st.lists(i))
)
def test_the_form_is_the_reference_implementations_whichever_way_it_was_written(value: object) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


class Colour(StrEnum):
    RED = "red"


def test_enumerations_have_the_form_of_their_values() -> None:
    assert canonical_bytes({Colour.RED: [Colour.RED, IntEnum("Size", "BIG").BIG]}) == b'{"red":["red",1]}'


@given(st.dictionaries(TEXT, INTEGERS, min_size=2))
def test_the_order_of_members_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_sha256(dict(reversed(value.items()))) == canonical_sha256(value)


@given(JSON, JSON)
def test_values_share_a_hash_exactly_when_they_are_the_same_json_value(left: object, right: object) -> None:
    same = canonical_bytes(left) == canonical_bytes(right)
    assert (canonical_sha256(left) == canonical_sha256(right)) == same
    if same:
        assert left == right


@given(FLOATS)
def test_a_float_keeps_every_bit_of_itself(value: float) -> None:
    assert float(canonical_bytes(value)) == value


def test_the_published_example_of_rfc_8785_has_its_published_form() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\u0022/",
        "literals": [None, True, False],
    }
    assert (
        canonical_bytes(value)
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_members_are_sorted_by_utf_16_code_units() -> None:
    assert canonical_bytes({"\ufb33": 1, "\U0001f600": 2, "a": 3}) == '{"a":3,"\U0001f600":2,"\ufb33":1}'.encode()


@pytest.mark.parametrize(
    ("value", "code", "pointer"),
    [
        ({"a": [1, 2**53]}, "canonical.integer_range", "/a/1"),
        ({"a": -(2**53)}, "canonical.integer_range", "/a"),
        ([math.nan], "canonical.not_a_number", "/0"),
        ({"a/b": {"c~d": math.inf}}, "canonical.not_a_number", "/a~1b/c~0d"),
        ({"a": "\ud800"}, "canonical.text_invalid", "/a"),
        ({"\udfff": 1}, "canonical.text_invalid", ""),
        ({1: 2}, "canonical.key_invalid", ""),
        ([{"when": b"bytes"}], "canonical.unsupported", "/0/when"),
    ],
)
def test_a_value_without_a_form_is_refused_with_its_place(value: object, code: str, pointer: str) -> None:
    with pytest.raises(LivoaError) as caught:
        canonical_sha256(value)
    assert (caught.value.code, caught.value.pointer) == (code, pointer)


def test_endless_nesting_is_a_refusal_and_no_crash() -> None:
    value: list[object] = []
    for _ in range(sys.getrecursionlimit() * 2):
        value = [value]
    with pytest.raises(LivoaError) as caught:
        canonical_bytes(value)
    assert caught.value.code == "canonical.too_deep"
