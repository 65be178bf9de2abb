"""Which node comes next: every edge as a line of a table, and no path that goes round for ever."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_graph.edges import (
    MAX_REPAIRS,
    MIN_CALL_S,
    Standing,
    after_classify,
    after_critique,
    after_draft,
    after_repair,
    after_validate,
    first,
    longest_path,
)

LATE = {"time_left_s": MIN_CALL_S - 1}


@pytest.mark.parametrize(
    ("edge", "facts", "expected"),
    [
        (first, {}, "classify"),
        (first, {"has_router": False}, "classify"),
        (first, {"has_planner": False}, "classify"),
        (first, {"has_planner": False, "has_router": False}, "degrade"),
        (first, {"suffix": True}, "plan"),
        (first, {"suffix": True, "has_planner": False}, "degrade"),
        (after_classify, {}, "plan"),
        (after_classify, {"decided": True}, "end"),
        (after_classify, {"has_planner": False}, "degrade"),
        (after_classify, LATE, "degrade"),
        (after_draft, {}, "validate"),
        (after_draft, {"decided": True}, "end"),
        (after_draft, {"trouble": True, "critique_due": True}, "degrade"),
        (after_draft, {"critique_due": True}, "self_critique"),
        (after_draft, {"critique_due": True, "faults": True}, "validate"),
        (after_draft, {"critique_due": True, "revisions": 1}, "validate"),
        (after_draft, {"critique_due": True} | LATE, "validate"),
        (after_critique, {}, "validate"),
        (after_critique, {"findings": True}, "repair"),
        (after_critique, {"findings": True, "revisions": 1}, "validate"),
        (after_critique, {"findings": True} | LATE, "validate"),
        (after_repair, {}, "validate"),
        (after_repair, {"critique_due": True, "findings": True}, "validate"),
        (after_repair, {"trouble": True}, "degrade"),
        (after_repair, {"decided": True}, "end"),
        (after_validate, {"decided": True}, "end"),
        (after_validate, {"faults": True}, "repair"),
        (after_validate, {"faults": True, "repairs": 1}, "repair"),
        (after_validate, {"faults": True, "repairs": 2}, "degrade"),
        (after_validate, {"faults": True, "max_repairs": 0}, "degrade"),
        (after_validate, {"faults": True, "max_repairs": 99, "repairs": MAX_REPAIRS}, "degrade"),
        (after_validate, {"faults": True} | LATE, "degrade"),
    ],
)
def test_edges(edge, facts, expected):
    assert edge(Standing(**facts)) == expected


@given(st.integers(0, 8), st.data())
def test_whatever_nodes_come_to_every_path_is_short(max_repairs, data):
    """A walk in which every node does whatever it likes: it ends, and no later than the recursion limit allows."""
    after = {
        "classify": after_classify,
        "plan": after_draft,
        "self_critique": after_critique,
        "repair": after_repair,
        "validate": after_validate,
    }
    revisions = repairs = 0
    findings = False
    node = first(Standing())
    for length in itertools.count(1):
        if node == "degrade":
            break
        findings = node == "self_critique" and data.draw(st.booleans())
        standing = Standing(
            decided=data.draw(st.integers(0, 9)) == 0,
            trouble=data.draw(st.integers(0, 9)) == 0,
            faults=data.draw(st.booleans()),
            findings=findings,
            critique_due=data.draw(st.booleans()),
            revisions=revisions,
            repairs=repairs,
            max_repairs=max_repairs,
            time_left_s=data.draw(st.sampled_from((1.0, 240.0, 240.0))),
        )
        following = after[node](standing)
        if following == "repair":
            revisions, repairs = (revisions + 1, repairs) if node == "self_critique" else (revisions, repairs + 1)
        if following == "end":
            break
        node = following
        assert length < longest_path(max_repairs)
