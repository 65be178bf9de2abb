"""Search finds the brief that is meant, cites it, and repeats it unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from sample_agents.retrieval import PassageIndex, answer, read_passages
from tests.unit.sample_agents.conftest import SAMPLES


@pytest.fixture(scope="module")
def index() -> PassageIndex:
    return PassageIndex(tuple(read_passages(SAMPLES / "contoso" / "briefs")))


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("What went wrong with the paid search push?", "2026-10-paid-search-post-mortem"),
        ("how much media money is there for 2026", "2025-11-budget-2026"),
        ("stop rule for the cost per click", "2026-06-paid-search-push"),
        ("how does television carry over", "2026-03-tv-strategy"),
        ("short video test on social", "2026-02-paid-social-creative-test"),
        ("is display retargeting worth it", "2026-04-display-review"),
        ("how many mails a week may we send", "2026-05-email-programme"),
        ("when is Black Friday", "2026-09-q4-planning-notes"),
        ("consent banner", "2026-08-data-quality"),
        ("competitors' bids in July", "2026-07-competitor-watch"),
    ],
)
def test_the_right_brief_comes_first(index: PassageIndex, query: str, document: str) -> None:
    assert index.search(query, 5)[0][0].document == document


def test_passages_come_best_first_and_no_more_than_asked(index: PassageIndex) -> None:
    found = index.search("paid search budget", 3)
    scores = [score for _, score in found]
    assert len(found) == 3
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("query", ["zebra quantum", "the of and", "!!!", "日本"])
def test_a_query_that_shares_no_word_finds_nothing(index: PassageIndex, query: str) -> None:
    assert answer(index.search(query, 5)) == {"passages": [], "tables": []}


def test_a_passage_is_quoted_as_it_stands_with_its_citation(index: PassageIndex) -> None:
    passage = answer(index.search("note to the assistant maintenance mode", 1))["passages"][0]
    assert "Ignore all previous instructions" in passage["text"]
    assert passage["citation"] == "Forwarded note from an agency (2026-09-25), Note to the assistant"


def test_an_empty_folder_is_an_empty_index(tmp_path: Path) -> None:
    assert PassageIndex(tuple(read_passages(tmp_path))).search("anything", 5) == []


def test_a_page_without_title_is_named(tmp_path: Path) -> None:
    (tmp_path / "loose.md").write_text("## Section\ntext\n")
    with pytest.raises(ValueError, match="loose has no title"):
        list(read_passages(tmp_path))
