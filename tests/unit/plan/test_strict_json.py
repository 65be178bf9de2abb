"""Strict JSON: what is refused, with which code and place, and that everything else is what the standard reader says."""

from __future__ import annotations

import json
import time

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import LivoaError
from engine.domain.strict_json import MAX_INTEGER, parse

MIB = 1024 * 1024

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=4)
    ),
    max_leaves=20,
)


def refusal(data: bytes | str, **limits: int) -> LivoaError:
    raw = data.encode("utf-8") if isinstance(data, str) else data
    with pytest.raises(LivoaError) as caught:
        parse(raw, max_bytes=limits.get("max_bytes", MIB), max_depth=limits.get("max_depth", 64))
    return caught.value


def outcome_of(data: bytes) -> object:
    try:
        return parse(data, max_bytes=MIB)
    except LivoaError as error:
        return error


@given(json_values)
def test_what_the_standard_writer_writes_is_read_back(value: object) -> None:
    for ascii_only in (True, False):
        assert parse(json.dumps(value, ensure_ascii=ascii_only).encode(), max_bytes=MIB) == value


@given(json_values)
def test_whatever_passes_has_a_canonical_form(value: object) -> None:
    assert rfc8785.dumps(parse(json.dumps(value).encode(), max_bytes=MIB))


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\u0dD8 1eE.-+Natrufls\n', max_size=60).map(str.encode))
def test_any_bytes_are_either_read_or_refused_with_a_code(data: bytes) -> None:
    outcome = outcome_of(data)
    if isinstance(outcome, LivoaError):
        assert outcome.code.startswith("json.")
        assert outcome.status in (400, 413)
        assert "".join([outcome.message, *(v.pointer for v in outcome.violations)]).encode()
    else:
        assert rfc8785.dumps(outcome)


@pytest.mark.parametrize(
    ("text", "code", "pointer"),
    [
        ('{"a": 1, "a": 2}', "json.duplicate_key", "/a"),
        ('{"x": [0, {"b/c~d": 1, "b/c~d": 1}]}', "json.duplicate_key", "/x/1/b~1c~0d"),
        ('{"a": {"k": 1, "k": 2}, "a": 0}', "json.duplicate_key", "/a"),
        ('{"a": [1, NaN]}', "json.not_a_number", "/a/1"),
        ("Infinity", "json.not_a_number", ""),
        ('{"a": -Infinity}', "json.not_a_number", "/a"),
        ("[9007199254740992]", "json.integer_range", "/0"),
        ("[-9007199254740992]", "json.integer_range", "/0"),
        ("[" + "9" * 5000 + "]", "json.integer_range", "/0"),
        ('{"n": 1e400}', "json.number_range", "/n"),
        ('{"n": -1e400}', "json.number_range", "/n"),
        ('["\\ud800"]', "json.lone_surrogate", "/0"),
        ('["a\\udc00b"]', "json.lone_surrogate", "/0"),
        ('{"\\ud800": 1}', "json.lone_surrogate", "/\ufffd"),
    ],
)
def test_a_refused_value_is_named_by_pointer(text: str, code: str, pointer: str) -> None:
    error = refusal(text)
    assert (error.code, error.pointer, error.status) == (code, pointer, 400)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "json.syntax"),
        (b"   ", "json.syntax"),
        (b"{", "json.syntax"),
        (b'"abc', "json.syntax"),
        (b"[1,]", "json.syntax"),
        (b"[01]", "json.syntax"),
        (b'["\t"]', "json.syntax"),
        ("[\u0661]".encode(), "json.syntax"),
        (b"{} {}", "json.trailing_data"),
        (b"[1]]", "json.trailing_data"),
        (b"\xef\xbb\xbf{}", "json.bom"),
        (b'["\xff"]', "json.encoding"),
        (b'["\xed\xa0\x80"]', "json.encoding"),
        (b"\xff\xfe[\x00]\x00", "json.encoding"),
    ],
)
def test_text_that_is_not_one_json_value_in_utf8_is_refused(data: bytes, code: str) -> None:
    error = refusal(data)
    assert (error.code, error.status) == (code, 400)


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse(b'["\\ud83d\\ude00", "\\\\ud800"]', max_bytes=MIB) == ["\U0001f600", "\\ud800"]


def test_the_largest_safe_integers_are_kept_as_integers() -> None:
    assert parse(b"[9007199254740991, -9007199254740991, 1e2]", max_bytes=MIB) == [MAX_INTEGER, -MAX_INTEGER, 100.0]


def test_all_offences_are_listed_in_document_order_up_to_a_bound() -> None:
    error = refusal('{"a": NaN, "b": {"c": 1, "c": 2}, "d": [1e999]}')
    assert [v.pointer for v in error.violations] == ["/a", "/b/c", "/d/0"]
    assert len(refusal("[" + ",".join(["NaN"] * 1000) + "]").violations) == 50


def test_size_is_checked_before_anything_else() -> None:
    assert parse(b'"' + b"x" * 8 + b'"', max_bytes=10) == "xxxxxxxx"
    error = refusal(b'"' + b"\xff" * 10, max_bytes=10)
    assert (error.code, error.status) == ("json.too_large", 413)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_depth_is_bounded_exactly(opening: str) -> None:
    levels = opening.count("[") + opening.count("{")
    closing = "".join("}" if c == "{" else "]" for c in reversed(opening) if c in "[{")
    fits = 64 // levels
    assert parse((opening * fits + "1" + closing * fits).encode(), max_bytes=MIB) is not None
    assert refusal(opening * (fits + 1) + "1" + closing * (fits + 1)).code == "json.too_deep"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 50_000 + "]" * 50_000])
def test_a_hundred_thousand_brackets_are_refused_not_crashed_on(text: str) -> None:
    assert refusal(text).code == "json.too_deep"


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    assert parse(json.dumps(["[" * 1000, '\\"[[' * 100]).encode(), max_bytes=MIB)


@pytest.mark.parametrize("text", ['"\\' * 500_000, '"' + "\\u" * 500_000, '["' * 60, '"' * 1_000_001, "\\" * 1_000_000])
def test_hostile_text_is_refused_in_linear_time(text: str) -> None:
    started = time.perf_counter()
    assert refusal(text, max_bytes=4 * MIB).code.startswith("json.")
    assert time.perf_counter() - started < 5


def test_long_keys_do_not_multiply_into_long_pointers() -> None:
    key = "k" * 1_000_000
    started = time.perf_counter()
    error = refusal('{"a": {"' + key + '": [' + "1," * 500_000 + "NaN]}}", max_bytes=4 * MIB)
    assert (error.code, error.pointer) == ("json.not_a_number", "/a")
    assert time.perf_counter() - started < 20


def test_messages_never_repeat_the_input() -> None:
    error = refusal('{"secret-token": "hunter2" oops}')
    assert "hunter2" not in error.message
    assert "line 1, column 28" in error.message


@pytest.mark.parametrize("max_depth", [0, 257])
def test_an_unsafe_depth_limit_is_a_mistake_of_the_caller(max_depth: int) -> None:
    with pytest.raises(ValueError, match="max_depth"):
        parse(b"1", max_bytes=10, max_depth=max_depth)
