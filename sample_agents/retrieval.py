"""``rag.search``: the passages of a tenant's briefs that fit a query, by BM25 in this process or by Azure AI Search.

A brief is a markdown page with a title and a date in front; every section is one passage. Passages are quoted as they stand and
labelled as documents (integrity 0) by the manifest: nothing here reads them as instructions, or could.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent_kit import Agent, StepContext
from engine.domain.base import Frozen
from sample_agents.dataset import Datasets
from sample_agents.figures import table

_WORD = re.compile(r"[a-z0-9]+")
_FRONT = re.compile(r"\A---\n(?P<front>.*?)\n---\n", re.DOTALL)
_MAX_PAGE_BYTES = 64 * 1024
_MAX_PAGES = 500
_MAX_TEXT_CHARS = 4_000
_STOPWORDS = frozenset(
    "a an and are as at be by did do does for from how in is it of on or our the their to was we what".split()
)


class SearchInputs(Frozen):
    """See the manifest."""

    query: str
    top_k: int = 5


@dataclass(frozen=True, slots=True)
class Passage:
    """One section of one brief. ``document`` is the page's file name without its ending."""

    document: str
    title: str
    section: str
    date: str
    text: str


def read_passages(folder: Path) -> Iterator[Passage]:
    """All sections of all pages, in order of file name. ``ValueError`` for a page that is too large or without a title."""
    for path in sorted(folder.glob("*.md"))[:_MAX_PAGES]:
        if path.stat().st_size > _MAX_PAGE_BYTES:
            raise ValueError(f"{path.name} is larger than {_MAX_PAGE_BYTES} bytes")
        yield from _passages_of(path.stem, path.read_text(encoding="utf-8"))


def _passages_of(document: str, page: str) -> Iterator[Passage]:
    found = _FRONT.match(page)
    front = dict(line.split(": ", 1) for line in found["front"].splitlines() if ": " in line) if found else {}
    if found is None or "title" not in front:
        raise ValueError(f"{document} has no title")
    for part in re.split(r"^## ", page[found.end() :], flags=re.MULTILINE)[1:]:
        section, _, text = part.partition("\n")
        words = " ".join(text.split())[:_MAX_TEXT_CHARS]
        yield Passage(document, front["title"][:200], section.strip()[:200], front.get("date", "")[:10], words)


class PassageIndex:
    """A searchable set of passages."""

    def __init__(self, passages: tuple[Passage, ...]) -> None:
        import bm25s
        import Stemmer

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
        self._passages = passages
        self._stemmer = Stemmer.Stemmer("english")
        documents = [self._stems(f"{p.title} {p.title} {p.section} {p.text}") for p in passages]
        self._known = {word for document in documents for word in document}
        self._bm25: Any = bm25s.BM25()
        if self._known:
            self._bm25.index(documents, show_progress=False)

    def search(self, query: str, top_k: int) -> list[tuple[Passage, float]]:
        """The best passages that share a word with the query, best first; ties in order of document."""
        words = [word for word in dict.fromkeys(self._stems(query)) if word in self._known]
        if not words:
            return []
        scores = self._bm25.get_scores(words)
        order = sorted(range(len(scores)), key=lambda index: (-float(scores[index]), index))
        return [(self._passages[index], float(scores[index])) for index in order[:top_k] if scores[index] > 0]

    def _stems(self, text: str) -> list[str]:
        words = [word for word in _WORD.findall(text.lower()) if word not in _STOPWORDS]
        return list(self._stemmer.stemWords(words))


class PassageSearch(Protocol):
    """Where passages are looked up."""

    async def search(self, inputs: SearchInputs, context: StepContext) -> list[tuple[Passage, float]]:
        """The passages of the call's tenant that fit best, with their scores, best first. ``CapabilityError``."""
        ...


class EmbeddedSearch:
    """Implements ``PassageSearch`` in this process: a tenant's pages are read and indexed by its first query."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets
        self._indexes: dict[str, PassageIndex] = {}

    async def search(self, inputs: SearchInputs, context: StepContext) -> list[tuple[Passage, float]]:
        """See ``PassageSearch``."""
        return await context.compute(self._search, context.tenant_id, inputs.query, inputs.top_k)

    def _search(self, tenant_id: str, query: str, top_k: int) -> list[tuple[Passage, float]]:
        if tenant_id not in self._indexes:
            folder = self._datasets.folder_of(tenant_id) / "briefs"
            self._indexes[tenant_id] = PassageIndex(tuple(read_passages(folder)))
        return self._indexes[tenant_id].search(query, top_k)


def register(agent: Agent, passages: PassageSearch) -> None:
    """Add the capability to an agent."""

    @agent.capability("rag.search")
    async def rag_search(inputs: SearchInputs, context: StepContext) -> dict[str, Any]:
        return answer(await passages.search(inputs, context))


def answer(found: list[tuple[Passage, float]]) -> dict[str, Any]:
    """The output of ``rag.search``."""
    passages = [
        {
            "document": passage.document,
            "title": passage.title,
            "section": passage.section,
            "date": passage.date,
            "text": passage.text,
            "score": round(score, 4),
            "citation": f"{passage.title} ({passage.date}), {passage.section}",
        }
        for passage, score in found
    ]
    rows = ((one["title"], one["section"], one["date"], one["score"]) for one in passages)
    return {
        "passages": passages,
        "tables": [table("Sources", ("Document", "Section", "Date", "Score"), rows)] if passages else [],
    }
