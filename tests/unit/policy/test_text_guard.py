"""Text that could end the process that parses it never reaches the parser; text that cannot is let through."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.cedar import CedarError, policies_of
from policy.text_guard import MAX_DEPTH, guard_text, policy_lines

HEAD = "permit (principal, action, resource) when { "
BOMBS = {
    "parentheses": lambda n: "(" * n + "1" + ")" * n + " == 1",
    "sets": lambda n: "[" * n + "1" + "]" * n + " == 1",
    "records": lambda n: '{"a":' * n + "1" + "}" * n + " == 1",
    "calls": lambda n: "context.a.contains(" * n + "1" + ")" * n,
    "else_if": lambda n: "if true then true else " * n + "true",
    "if_if": lambda n: "if " * n + "true" + " then true else true" * n,
    "not": lambda n: "!" * n + "true",
    "and": lambda n: "true" + " && true" * n,
}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("size", [60, 1_000, 100_000])
def test_every_way_of_nesting_is_bounded_before_parsing(kind: str, size: int) -> None:
    with pytest.raises(CedarError) as refused:
        policies_of(HEAD + BOMBS[kind](size) + " };")
    assert refused.value.code in ("policy.too_deep", "policy.too_large")


def test_the_parser_itself_dies_of_a_thousand_brackets() -> None:
    """Should this fail, the library has learned to refuse by itself; the guard stays for older versions."""
    text = HEAD + BOMBS["parentheses"](1_000) + " };"
    done = subprocess.run([sys.executable, "-c", f"import cedarpy; cedarpy.PolicySet.from_str({text!r})"], check=False)
    assert done.returncode < 0


@pytest.mark.parametrize("hidden", ['"{}"', "// {}\n true", '"\\"{}"'])
def test_brackets_in_texts_and_comments_do_not_count(hidden: str) -> None:
    text = HEAD + hidden.format("(" * 200) + (" == context.a };" if hidden.startswith('"') else " };")
    assert guard_text(text) is None
    assert len(policies_of(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        f'// "\n{HEAD}{"(" * 100}',
        f"// \r{HEAD}{'(' * 100}",
        f'"unfinished {HEAD}{"(" * 100}',
        f'@a("x\\"){HEAD}{"(" * 100}',
    ],
    ids=["quote in a comment", "lone carriage return", "unfinished text", "escaped quote"],
)
def test_brackets_cannot_hide_behind_what_only_looks_like_text(text: str) -> None:
    assert guard_text(text) is not None


def test_depth_just_within_the_bound_is_parsed() -> None:
    inside = MAX_DEPTH - 1  # one for the braces of the condition
    assert len(policies_of(HEAD + "(" * inside + "true" + ")" * inside + " };")) == 1
    with pytest.raises(CedarError):
        policies_of(HEAD + "(" * MAX_DEPTH + "true" + ")" * MAX_DEPTH + " };")


def test_a_policy_has_at_most_ten_kibibytes_and_a_file_may_have_many() -> None:
    policy = HEAD + "true };\n"
    assert guard_text(policy * 1_000) is None
    found = guard_text(policy + HEAD + '"' + "x" * 11_000 + '" == "x" };' + policy)
    assert found is not None
    assert (found.code, found.line) == ("policy.too_large", 2)


@pytest.mark.parametrize("letter", ["\u0430", "\u200b", "\u00e9", "\x00", "\ud800"])
def test_letters_that_look_like_others_are_named_with_their_line(letter: str) -> None:
    found = guard_text(f'permit (principal,\n action, resource == A::"{letter}cme");')
    assert found is not None
    assert (found.code, found.line) == ("policy.not_ascii", 2)


def test_each_policy_knows_the_line_it_begins_on() -> None:
    text = (
        '// one; two\n@id("a;b")\npermit (principal, action, resource)\nwhen { [1].contains(1) };\n\n\n'
        + HEAD
        + "true };"
    )
    assert policy_lines(text) == [2, 7]
    assert len(policies_of(text)) == 2


@given(st.text(alphabet='([{}])";/\\ \n!-if&|e@', max_size=400))
@settings(max_examples=300, deadline=None)
def test_whatever_the_guard_lets_through_leaves_the_parser_alive(text: str) -> None:
    if guard_text(text) is None:
        code = "policy.syntax"
        try:
            policies_of(text)
        except CedarError as error:
            code = error.code
        assert code in ("policy.syntax", "policy.template")
