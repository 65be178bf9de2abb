"""The lexical router: which playbook an intent asks for, or none.

Candidates are ranked by BM25 (bm25s with the Snowball stemmer) over their title, description and example sentences, one
document per sentence, best sentence wins. BM25 scores have no absolute scale, so acceptance is decided by *coverage*: the
share of the intent's words, weighted by how telling they are (inverse document frequency), that the candidate's own words
cover. An intent about something else shares few telling words with any candidate and is recognised as out of scope.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

MIN_COVERAGE = 0.34
"""Below this share of covered words an intent is out of scope. Set on tests/unit/planner_graph/routing_cases.yaml."""

_WORD = re.compile(r"[a-z][a-z0-9]+")
_STOPWORDS = frozenset(
    "a about after all also am an and any are as at be been before between by can could did do does for from get give had has"
    " have help how i if in into is it its just like make me more most much my need no not now of on or our out over please"
    " should show so some tell than that the their them then there these they this those to too under up us use using want"
    " was we were what when where which who why will with would you your".split()
)
_MAX_WORDS = 400
_MAX_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something an intent may ask for: its id and the sentences that describe it."""

    name: str
    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """One ranked candidate. ``coverage`` runs from 0 to 1; ``score`` only orders."""

    name: str
    coverage: float
    score: float


class LexicalRouter:
    """Ranks candidates for an intent. Building the index costs milliseconds; it is kept per tenant by the caller."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = tuple(candidates)

    @cached_property
    def _index(self) -> _Index:
        return _Index(self._candidates)

    def rank(self, text: str) -> tuple[Route, ...]:
        """All candidates that share a word with ``text``, best first. Ties go by name, so the order never wavers."""
        if not self._candidates:
            return ()
        return self._index.rank(text)


class _Index:
    def __init__(self, candidates: tuple[Candidate, ...]) -> None:
        import bm25s
        import Stemmer

        self._stemmer = Stemmer.Stemmer("english")
        self._names: list[str] = []
        self._words: dict[str, frozenset[str]] = {}
        documents: list[list[str]] = []
        for candidate in candidates:
            own: set[str] = set()
            for sentence in (candidate.title, *candidate.sentences):
                words = self._stems(sentence)
                if words:
                    documents.append(words)
                    self._names.append(candidate.name)
                    own.update(words)
            self._words[candidate.name] = frozenset(own)
        frequency = Counter(word for words in self._words.values() for word in words)
        total = len(candidates)
        self._idf = {word: math.log(1 + total / count) for word, count in frequency.items()}
        self._unknown_idf = math.log(1 + 2 * total)
        self._bm25: Any = bm25s.BM25()
        self._bm25.index(documents, show_progress=False)

    def _stems(self, text: str) -> list[str]:
        words = [word for word in _WORD.findall(text[:_MAX_CHARS].lower()) if word not in _STOPWORDS][:_MAX_WORDS]
        return list(self._stemmer.stemWords(words))

    def rank(self, text: str) -> tuple[Route, ...]:
        words = self._stems(text)
        known = [word for word in words if word in self._idf]
        if not known:
            return ()
        best: dict[str, float] = {}
        for name, score in zip(self._names, self._bm25.get_scores(known), strict=True):
            best[name] = max(best.get(name, 0.0), float(score))
        routes = [Route(name, self._coverage(words, name), score) for name, score in best.items() if score > 0]
        return tuple(sorted(routes, key=lambda route: (-route.score * (0.25 + route.coverage), route.name)))

    def _coverage(self, words: Iterable[str], name: str) -> float:
        own = self._words[name]
        covered = total = 0.0
        for word in set(words):
            weight = self._idf.get(word, self._unknown_idf)
            total += weight
            covered += weight if word in own else 0.0
        return covered / total if total else 0.0
