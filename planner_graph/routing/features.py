"""Texts as sparse vectors: words, pairs of neighbouring words, and the pieces of words, weighted by how telling they are.

Pieces of words (two to four characters) forgive endings and typing errors; pairs keep "transfer from" apart from "transfer to".
Words and pieces are each brought to length one, so that long words do not drown short questions. Nothing here knows a language.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

MAX_CHARS = 8_000
"""What follows is not read: as much as an intent may have."""
_MAX_WORDS = 1_500
_MAX_WORD_CHARS = 40
_PIECES = (2, 3, 4)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Features:
    """One text over a vocabulary.

    ``indices`` and ``values`` have one entry per known feature. ``known`` is the share of the text, by weight, that examples
    of some label use: 0 for a text of nothing but new words, 1 for one without any.
    """

    indices: Ints
    values: Floats
    known: float


def grams(text: str) -> tuple[list[str], list[str]]:
    """The words and word pairs of a text, and the pieces of its words. Case and compatibility forms are levelled."""
    levelled = unicodedata.normalize("NFKC", text[:MAX_CHARS]).casefold()[:MAX_CHARS]
    words = [word[:_MAX_WORD_CHARS] for word in _WORD.findall(levelled)[:_MAX_WORDS]]
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    pieces = [
        f"#{edged[at : at + size]}"
        for edged in (f"_{word}_" for word in words)
        for size in _PIECES
        for at in range(len(edged) - size + 1)
    ]
    return words + pairs, pieces


class Vocabulary:
    """The features of a training set and their inverse document frequencies.

    ``foreign`` texts belong to no label: their features are weighed like the others but do not count as known.
    """

    def __init__(self, texts: Sequence[str], foreign: Sequence[str] = ()) -> None:
        import numpy as np

        self._own = 0
        frequency: Counter[str] = Counter()
        self._counts: list[tuple[Counter[str], Counter[str]]] | None = []
        for number, text in enumerate((*texts, *foreign)):
            if number == len(texts):
                self._own = len(frequency)
            words, pieces = (Counter(part) for part in grams(text))
            self._counts.append((words, pieces))
            frequency.update(words.keys())
            frequency.update(pieces.keys())
        self._own = self._own if foreign else len(frequency)
        total = len(texts) + len(foreign)
        self._index = {feature: at for at, feature in enumerate(frequency)}
        counts = np.fromiter(frequency.values(), dtype=np.float64, count=len(frequency))
        self._idf = np.log((1 + total) / (1 + counts)) + 1
        self._unknown_idf = math.log(1 + total) + 1

    def __len__(self) -> int:
        """How many features there are."""
        return len(self._index)

    def take_rows(self) -> list[Features]:
        """The training texts over this vocabulary, the foreign ones last. Once only: what they were made of is then forgotten."""
        counts, self._counts = self._counts, None
        if counts is None:
            raise ValueError("the rows of a vocabulary can be taken once")
        return [self._features(each) for each in counts]

    def features(self, text: str) -> Features:
        """Any text over this vocabulary."""
        words, pieces = grams(text)
        return self._features((Counter(words), Counter(pieces)))

    def _features(self, counts: tuple[Counter[str], Counter[str]]) -> Features:
        import numpy as np

        parts = [self._part(part) for part in counts]
        return Features(
            indices=np.concatenate([indices for indices, _, _ in parts]),
            values=np.concatenate([values for _, values, _ in parts]),
            known=sum(known for _, _, known in parts) / len(parts),
        )

    def _part(self, part: Counter[str]) -> tuple[Ints, Floats, float]:
        import numpy as np

        found: list[tuple[int, int]] = []
        unknown = 0.0
        for feature, count in part.items():
            at = self._index.get(feature)
            if at is None:
                unknown += ((1 + math.log(count)) * self._unknown_idf) ** 2
            else:
                found.append((at, count))
        indices = np.array([at for at, _ in found], dtype=np.int64)
        counts = np.array([count for _, count in found], dtype=np.float64)
        values = (1 + np.log(counts)) * self._idf[indices]
        squares = float(values @ values)
        if not squares:
            return indices, values.astype(np.float32), 0.0
        # The features of the labels' own examples come first in the index.
        own = values[indices < self._own]
        return indices, (values / math.sqrt(squares)).astype(np.float32), float(own @ own) / (squares + unknown)
