"""The intent classifier: which label a text belongs to, how surely, and whether it belongs to any.

A linear classifier (multinomial logistic regression with a "none of them" whose score is fixed at zero) over the features of
``features.py``, and over sentence embeddings too when an encoder is given. It is trained example by example, which takes
milliseconds for a catalog and seconds for 15,000 sentences. Where so many labels meet so many features that training would
cost too much, texts are compared with the mean of each label's examples instead.

In scope or not is decided by two figures: the best label's score, and the share of the text that the vocabulary knows.
Their weights have defaults and can be fitted, with the threshold, on validation data.

Deterministic: the order of training is drawn from a fixed seed. It calls nothing and keeps no text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from engine.ports.planner import Ranked
from planner_graph.routing.features import Features, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Ints = NDArray[np.int64]

_NONE = -1
_SEED = 20_261_122
_BIAS_SHARE = 0.1
"""The bias learns slower than the features: it stands in every example."""
_FEW = 400


class Encoder(Protocol):
    """Sentence embeddings of unit length."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """One row per text."""
        ...


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """In scope when ``1/(1+exp(-(score·best + known·share + bias)))`` reaches ``threshold``."""

    score: float = 1.0
    known: float = 6.5
    bias: float = -7.6
    threshold: float = 0.5

    def confidence(self, best: float, known: float) -> float:
        """From 0 to 1."""
        x = self.score * best + self.known * known + self.bias
        return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How much training may cost and how far each example moves the weights.

    ``max_weights`` and ``max_work`` (multiplications) bound memory and time; beyond them labels are compared by mean.
    """

    epochs: int = 10
    rate: float = 3.0
    embedding_weight: float = 1.5
    max_weights: int = 24_000_000
    max_work: float = 1e10
    similarity_scale: float = 12.0
    scope: ScopeRule = ScopeRule()


WITH_EMBEDDINGS = TrainingSettings(rate=2.0)
"""For training with an encoder: the vectors are longer, so the steps are shorter. Both rates were chosen on validation data."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the model makes of a text: the best labels with their probabilities, and whether it belongs to any.

    The probabilities leave room for "none of them", so they add up to less than one.
    """

    ranked: tuple[Ranked, ...]
    in_scope: bool
    confidence: float


@dataclass(frozen=True, slots=True)
class _Weights:
    """Scores of all labels: ``sparse`` is (features, labels), ``dense`` (embedding width, labels), ``bias`` (labels)."""

    sparse: Floats
    dense: Floats
    bias: Floats

    def scores(self, features: Features, embedding: Floats) -> Floats:
        return _sum_of(features.values, self.sparse[features.indices]) + _sum_of(embedding, self.dense) + self.bias


@dataclass(frozen=True, slots=True)
class _Means:
    """Cosine with the mean of each label's examples, kept by feature: entries ``starts[f]:starts[f + 1]`` are feature f's."""

    starts: Ints
    labels: Ints
    values: Floats
    dense: Floats
    scale: float

    def scores(self, features: Features, embedding: Floats) -> Floats:
        import numpy as np

        found = _sum_of(embedding, self.dense)
        for at, value in zip(features.indices.tolist(), features.values.tolist(), strict=True):
            entries = slice(self.starts[at], self.starts[at + 1])
            # A label stands at most once under a feature, so plain indexing adds each entry.
            found[self.labels[entries]] += np.float32(value) * self.values[entries]
        scaled: Floats = found * np.float32(self.scale)
        return scaled


class IntentModel:
    """A trained classifier. Made by ``train``; safe to share between threads, since nothing in it changes."""

    def __init__(
        self,
        labels: tuple[str, ...],
        vocabulary: Vocabulary,
        scorer: _Weights | _Means,
        encoder: Encoder | None,
        settings: TrainingSettings,
    ) -> None:
        self.labels = labels
        self.settings = settings
        self._vocabulary = vocabulary
        self._scorer = scorer
        self._encoder = encoder

    def assess(self, text: str, *, limit: int = 10) -> Assessment:
        """The ``limit`` best labels, whether the text is in scope, and how surely. Ties go by name."""
        ((scores, known),) = self._scores([text])
        if not scores.size:
            return Assessment((), False, 0.0)
        rule = self.settings.scope
        confidence = rule.confidence(float(scores.max()), known)
        return Assessment(self._best(scores, limit), confidence >= rule.threshold, confidence)

    def rank(self, text: str, *, limit: int = 10) -> tuple[Ranked, ...]:
        """The best labels with their probabilities, best first."""
        return self.assess(text, limit=limit).ranked

    def in_scope(self, text: str) -> tuple[bool, float]:
        """Whether the text belongs to any label, and the confidence that it does."""
        found = self.assess(text, limit=1)
        return found.in_scope, found.confidence

    def calibrated(
        self, in_scope: Sequence[tuple[str, str]], out_of_scope: Sequence[str], *, max_loss: float = 0.015
    ) -> IntentModel:
        """This model with its scope rule fitted on validation data: (label, text) pairs and texts of no label.

        The threshold is the highest that costs at most ``max_loss`` of the accuracy on the in-scope texts, where a
        rejected text counts as wrong. Without texts of either kind the rule stays as it is.
        """
        from planner_graph.routing.calibration import fit_rule

        if not in_scope or not out_of_scope or not self.labels:
            return self
        places = {label: at for at, label in enumerate(self.labels)}
        inside = list(self._scores([text for _, text in in_scope]))
        rows = [(float(scores.max()), known) for scores, known in inside]
        wanted = [places.get(label, _NONE) for label, _ in in_scope]
        right = [int(scores.argmax()) == at for (scores, _), at in zip(inside, wanted, strict=True)]
        others = [(float(scores.max()), known) for scores, known in self._scores(out_of_scope)]
        rule = fit_rule(rows, right, others, max_loss=max_loss)
        return IntentModel(
            self.labels, self._vocabulary, self._scorer, self._encoder, replace(self.settings, scope=rule)
        )

    def _scores(self, texts: Sequence[str]) -> Iterator[tuple[Floats, float]]:
        """The scores of all labels and the known share, per text. All texts are embedded at once."""
        for text, embedding in zip(texts, _embed(self._encoder, texts, self.settings), strict=True):
            features = self._vocabulary.features(text)
            yield self._scorer.scores(features, embedding), features.known

    def _best(self, scores: Floats, limit: int) -> tuple[Ranked, ...]:
        import numpy as np

        # Labels are sorted, and a stable sort keeps equal scores in the order of their names.
        order = np.argsort(-scores, kind="stable")[:limit]
        top = max(float(scores.max()), 0.0)
        shares = np.exp(scores.astype(np.float64) - top)
        shares /= shares.sum() + math.exp(-top)
        return tuple(Ranked(self.labels[at], float(shares[at])) for at in order.tolist())


class TrainingTexts:
    """Texts made ready for training: several models with labels of their own can learn from them.

    ``out_of_scope`` are texts that belong to no label of any model. ``encoder`` embeds these texts, and those asked about
    later unless ``asking`` is given for them.
    """

    def __init__(
        self,
        texts: Sequence[str],
        out_of_scope: Sequence[str] = (),
        *,
        settings: TrainingSettings | None = None,
        encoder: Encoder | None = None,
        asking: Encoder | None = None,
    ) -> None:
        self._settings = settings or TrainingSettings()
        self._asking = asking or encoder
        self._vocabulary = Vocabulary(texts, out_of_scope)
        self._rows = self._vocabulary.take_rows()
        self._foreign = range(len(texts), len(self._rows))
        self._embeddings = _embed(encoder, [*texts, *out_of_scope], self._settings)

    def model(self, labels: Mapping[int, str]) -> IntentModel:
        """A model of the texts at the keys of ``labels``, and of the out-of-scope texts."""
        chosen = self._settings
        names = tuple(sorted(set(labels.values())))
        places = {label: at for at, label in enumerate(names)}
        order = [*labels, *self._foreign]
        rows = [self._rows[at] for at in order]
        targets = [places[label] for label in labels.values()] + [_NONE] * len(self._foreign)
        shape = (len(self._vocabulary), len(names))
        work = sum(row.indices.size for row in rows) * len(names) * chosen.epochs
        fits = shape[0] * shape[1] <= chosen.max_weights and work <= chosen.max_work
        fit = _fit_weights if fits else _fit_means
        scorer = fit(rows, self._embeddings[order], targets, shape, chosen)
        return IntentModel(names, self._vocabulary, scorer, self._asking, chosen)


def train(
    examples: Sequence[tuple[str, str]],
    *,
    out_of_scope: Sequence[str] = (),
    settings: TrainingSettings | None = None,
    encoder: Encoder | None = None,
) -> IntentModel:
    """A model of (label, text) examples. ``out_of_scope`` are texts that belong to none of the labels.

    The same examples in the same order give the same model. No examples give a model that finds everything out of scope.
    """
    texts = TrainingTexts([text for _, text in examples], out_of_scope, settings=settings, encoder=encoder)
    return texts.model({at: label for at, (label, _) in enumerate(examples)})


def _embed(encoder: Encoder | None, texts: Sequence[str], settings: TrainingSettings) -> Floats:
    import numpy as np

    if encoder is None or not texts:
        return np.zeros((len(texts), 0), dtype=np.float32)
    return encoder.embed(texts) * np.float32(settings.embedding_weight)


def _fit_weights(
    rows: Sequence[Features],
    embeddings: Floats,
    targets: Sequence[int],
    shape: tuple[int, int],
    settings: TrainingSettings,
) -> _Weights:
    """Stochastic gradient descent on the log loss, the rate falling in steps to zero."""
    import numpy as np

    sparse = np.zeros(shape, dtype=np.float32)
    dense = np.zeros((embeddings.shape[1], shape[1]), dtype=np.float32)
    bias = np.zeros(shape[1], dtype=np.float32)
    if not shape[1]:
        return _Weights(sparse, dense, bias)
    if len(rows) <= _FEW:
        moves = _moves_of_few(rows, embeddings, targets, shape, settings)
        for row, move in zip(rows, moves, strict=True):
            sparse[row.indices] += row.values[:, None] * move
        for embedding, move in zip(embeddings, moves, strict=True):
            dense += embedding[:, None] * move
        return _Weights(sparse, dense, np.float32(_BIAS_SHARE) * moves.sum(axis=0))
    for at, rate in _schedule(len(rows), settings):
        row, embedding = rows[at], embeddings[at]
        touched = sparse[row.indices]
        error = _error(_sum_of(row.values, touched) + _sum_of(embedding, dense) + bias, targets[at], rate)
        touched -= row.values[:, None] * error
        sparse[row.indices] = touched
        if embedding.size:
            dense -= embedding[:, None] * error
        bias -= np.float32(_BIAS_SHARE) * error
    return _Weights(sparse, dense, bias)


def _moves_of_few(
    rows: Sequence[Features],
    embeddings: Floats,
    targets: Sequence[int],
    shape: tuple[int, int],
    settings: TrainingSettings,
) -> Floats:
    """The same descent told by example: how far each one has moved the weights, (examples, labels).

    The weights are the examples' features times these moves, so all scores follow from the products between examples. For few
    examples that is several times faster than touching the weights.
    """
    import numpy as np

    table = np.zeros((shape[0], len(rows)), dtype=np.float32)
    for at, row in enumerate(rows):
        table[row.indices, at] = row.values
    products = np.stack([_sum_of(row.values, table[row.indices]) for row in rows]) + np.float32(_BIAS_SHARE)
    products += np.stack([_sum_of(each, embeddings.T) for each in embeddings])
    moves = np.zeros((len(rows), shape[1]), dtype=np.float32)
    for at, rate in _schedule(len(rows), settings):
        moves[at] -= _error(_sum_of(products[at], moves), targets[at], rate)
    return moves


def _sum_of(values: Floats, rows: Floats) -> Floats:
    """Σ values[i]·rows[i]. Not ``@``: on products this small the threads of a BLAS cost several times what they save."""
    import numpy as np

    total: Floats = np.einsum("i,ij->j", values, rows)
    return total


def _schedule(count: int, settings: TrainingSettings) -> Iterator[tuple[int, float]]:
    """Which example comes next, and at which rate."""
    import numpy as np

    order = np.random.Generator(np.random.PCG64(_SEED))
    for epoch in range(settings.epochs):
        rate = settings.rate * (1 - epoch / settings.epochs)
        for at in order.permutation(count).tolist():
            yield at, rate


def _error(scores: Floats, target: int, rate: float) -> Floats:
    """The gradient of the log loss by the scores, times the rate. "None of them" has score zero and no weights."""
    import numpy as np

    top = max(float(scores.max()), 0.0)
    error: Floats = np.exp(scores - np.float32(top))
    error *= np.float32(rate) / (error.sum() + np.float32(math.exp(-top)))
    if target != _NONE:
        error[target] -= np.float32(rate)
    return error


def _fit_means(
    rows: Sequence[Features],
    embeddings: Floats,
    targets: Sequence[int],
    shape: tuple[int, int],
    settings: TrainingSettings,
) -> _Means:
    import numpy as np

    kept = [at for at, target in enumerate(targets) if target != _NONE]
    features = np.concatenate([rows[at].indices for at in kept])
    labels = np.concatenate([np.full(rows[at].indices.size, targets[at], dtype=np.int64) for at in kept])
    cells, inverse = np.unique(features * shape[1] + labels, return_inverse=True)
    values = np.zeros(cells.size, dtype=np.float32)
    np.add.at(values, inverse, np.concatenate([rows[at].values for at in kept]))
    dense = np.zeros((embeddings.shape[1], shape[1]), dtype=np.float32)
    for at in kept:
        dense[:, targets[at]] += embeddings[at]
    of_label = cells % shape[1]
    squares = np.bincount(of_label, weights=values.astype(np.float64) ** 2, minlength=shape[1]) + (dense**2).sum(axis=0)
    # A text has length √2: its words and its pieces have length one each.
    length = np.sqrt(2 * np.maximum(squares, 1e-12)).astype(np.float32)
    starts = np.searchsorted(cells // shape[1], np.arange(shape[0] + 1))
    return _Means(starts, of_label, values / length[of_label], dense / length, settings.similarity_scale)
