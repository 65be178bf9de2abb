"""A piece of a model's text before anybody sees it."""

import pytest

from planner_graph.synthesis.checking import UNSUPPORTED_MARK, Checker
from planner_graph.synthesis.figures import Evidence
from policy.links import clean_links

OUTPUTS = [("mix", {"roi": 2.41, "change": -0.12}), ("spend", {"total": 1_204_500})]


def checker(clean=lambda text, hosts: (text, 0)):
    return Checker(Evidence(OUTPUTS), {"mix", "spend"}, (), clean)


def test_a_figure_with_its_source_named_stays_as_it_is():
    text = "ROI was 2.41 [mix].\n"
    found = checker()
    assert found.check(text) == text
    assert found.findings.cited == {"mix"}
    assert found.findings.unsupported == []


def test_a_figure_without_a_source_gets_the_step_it_comes_from():
    assert checker().check("ROI was 2.41.\n") == "ROI was 2.41 [mix].\n"
    assert checker().check("Spend of 1.2 million, ROI 2.41.") == "Spend of 1.2 million, ROI 2.41 [mix, spend]."
    assert checker().check("**ROI: 2.41**\n") == "**ROI: 2.41 [mix]**\n"


def test_a_citation_of_the_wrong_step_does_not_count():
    assert checker().check("ROI was 2.41 [spend].") == "ROI was 2.41 [spend] [mix]."


def test_a_figure_that_no_output_shows_is_marked_and_listed():
    found = checker()
    assert found.check("ROI was 3.9 [mix] and fell 12%.") == f"ROI was 3.9{UNSUPPORTED_MARK} [mix] and fell 12%."
    assert found.findings.unsupported == ["3.9"]


def test_a_step_that_does_not_exist_cannot_be_cited():
    found = checker()
    assert found.check("It fell 12% [mix, made-up] [ghost].") == "It fell 12% [mix] ."
    assert found.findings.cited == {"mix"}


def test_links_are_filtered_before_anything_else():
    found = checker(lambda text, hosts: (text.replace("http://evil/9.99", ""), 1))
    assert found.check("See http://evil/9.99") == "See "
    assert found.findings.removed_links == 1
    assert found.findings.unsupported == []


@pytest.mark.parametrize(
    "text",
    [
        "see https:/[ghost]/evil.example/?q=secret",
        '<[ghost]img src="https:/[ghost]/evil.example/p.png?q=secret">',
        "![x][mix, ghost](/[ghost]/evil.example/p.png)",
        "w[ghost]ww.evil.example/?q=secret",
        "https:/[[ghost]ghost]/evil.example/?q=secret",
    ],
)
def test_a_citation_that_is_taken_out_leaves_no_address_behind(text):
    shown = checker(clean_links).check(f"{text} now.\n")
    assert clean_links(shown, ()) == (shown, 0)
    assert "//evil" not in shown
    assert "www.evil" not in shown
    assert "<img" not in shown
