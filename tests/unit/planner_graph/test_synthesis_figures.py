"""Which figures of a text the outputs of steps bear out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_graph.synthesis.figures import Evidence, figures_of

OUTPUT = {
    "channels": [
        {"name": "tv", "roi": 2.4137, "change": -0.1234, "spend": 1_204_500},
        {"name": "social", "roi": 0.98, "change": 0.05, "spend": 98_000.5},
    ],
    "note": "measured over 14 weeks; GBP 46k to GBP 2.40m, or 181% more",
    "ok": True,
}


def supported(text, question=""):
    evidence = Evidence([("mix", OUTPUT)], question)
    return [evidence.sources(figure) for figure in figures_of(text)]


@pytest.mark.parametrize(
    "text",
    [
        "ROI was 2.4137",
        "ROI was 2.41",
        "ROI was about 2.4",
        "it fell by 12.3%",
        "it fell by 12 %",
        "a change of \u221212.34 percent",
        "spend of 1,204,500",
        "spend of £1.2 million",
        "spend of 1.2m",
        "spend of $98,001",
        "98 thousand",
        "over 14 weeks",
        "46k",
        "2.4 million",
        "rose 181%",
        "a return of 2.41x",
        "12.3pp less",
        "12 pts less",
        "£0.0012b",
    ],
)
def test_a_figure_written_as_people_write_it_is_borne_out(text):
    assert supported(text) == [("mix",)]


@pytest.mark.parametrize(
    "text",
    [
        "ROI was 2.5",
        "it fell by 13%",
        "spend of 1.3 million",
        "spend of 1,204,501",
        "up 41,000",
        "a sum of 3.39",
        "4.2x",
        "3x",
        "7pp",
        "2.1B",
    ],
)
def test_a_figure_no_output_shows_is_not(text):
    assert supported(text) == [None]


def test_figures_of_the_question_are_borne_out_by_nobody_in_particular():
    assert supported("move 750,000", question="how should 750,000 move?") == [()]
    assert supported("move 750,000") == [None]


def test_years_and_small_counts_are_not_held_against_a_sentence():
    assert supported("the 5 channels in 2026") == [(), ()]


@pytest.mark.parametrize("text", ["2026-08-01", "v1.2.3", "step-3", "12/5", "Q3", "#7", "a1", "1.2.3", "mail@10.0.0.1"])
def test_dates_versions_and_names_are_no_figures(text):
    assert figures_of(text) == ()


def test_true_is_not_one():
    assert Evidence([("s", {"ok": True})]).sources(figures_of("100%")[0]) is None


@given(st.floats(min_value=0.001, max_value=1e9), st.integers(0, 6))
def test_every_rounding_of_a_number_is_borne_out_by_it(value, digits):
    text = f"{value:,.{digits}f}"
    evidence = Evidence([("s", {"x": value})])
    for figure in figures_of(text):
        assert evidence.sources(figure) in (("s",), ())


@given(st.text(max_size=300))
def test_any_text_is_read_without_error(text):
    for figure in figures_of(text):
        assert text[figure.start : figure.end] == figure.text
        Evidence([("s", {"t": text})]).sources(figure)


def test_huge_and_deep_outputs_are_bounded():
    deep: object = 5
    for _ in range(500):
        deep = [deep]
    evidence = Evidence([("s", {"deep": deep, "many": list(range(300_000)), "huge": 10**400, "inf": 1e308})])
    assert evidence.sources(figures_of("250,000 rows")[0]) in (None, ("s",))
