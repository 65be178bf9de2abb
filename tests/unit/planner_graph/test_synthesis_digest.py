"""Outputs are cut to size, and what is left out is named."""

import json

from hypothesis import given
from hypothesis import strategies as st

from planner_graph.synthesis.digest import digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=10), inner, max_size=20),
)


def test_what_fits_is_whole():
    value = {"kpis": [{"name": "ROI", "value": 2.4}], "note": "ä"}
    assert json.loads(digest(value, 10_000)) == value


def test_long_lists_and_texts_are_cut_and_counted():
    value = {"rows": [{"n": n, "text": "x" * 3_000} for n in range(300)]}
    text = digest(value, 5_000)
    shown = json.loads(text)
    assert len(text) <= 5_000
    assert shown["rows"][0]["n"] == 0
    assert shown["rows"][-1].startswith("… ")
    assert "more characters" in shown["rows"][0]["text"]


@given(JSON, st.integers(20, 2_000))
def test_it_never_exceeds_its_size(value, size):
    assert len(digest(value, size)) <= size


def test_depth_is_bounded():
    deep: object = 1
    for _ in range(2_000):
        deep = [deep]
    assert "deeper values left out" in digest(deep, 10_000)
