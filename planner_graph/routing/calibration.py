"""Fitting the scope rule on validation data: two weights, a bias and a threshold. Test data has no business here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner_graph.routing.model import ScopeRule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

_STEPS = 50
_PENALTY = 1e-2
"""Keeps the weights finite where the two kinds can be told apart without error."""


def fit_rule(
    inside: Sequence[tuple[float, float]],
    right: Sequence[bool],
    outside: Sequence[tuple[float, float]],
    *,
    max_loss: float,
) -> ScopeRule:
    """Weights by logistic regression over (best score, known share), both kinds counting the same however many there are.

    ``right`` says which in-scope texts got their own label. The threshold is the highest at which the share of in-scope
    texts that are right and kept is within ``max_loss`` of the share that are right.
    """
    import numpy as np

    texts = np.array([*inside, *outside], dtype=np.float64)
    middle, spread = texts.mean(axis=0), np.maximum(texts.std(axis=0), 1e-9)
    columns = np.c_[(texts - middle) / spread, np.ones(len(texts))]
    wanted = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    counts = np.where(wanted == 1, len(inside), len(outside))
    weights = _newton(columns, wanted, 0.5 * len(texts) / counts)
    score, known = (weights[:2] / spread).tolist()
    rule = ScopeRule(score, known, float(weights[2] - weights[:2] @ (middle / spread)))
    sure = np.array([rule.confidence(*text) for text in inside])
    kept = np.sort(sure[np.array(right, dtype=bool)])
    # Each right text below the threshold is a loss of one in len(inside).
    may_lose = int(max_loss * len(inside) + 1e-9)
    threshold = float(kept[min(may_lose, len(kept) - 1)]) if len(kept) else 0.5
    return ScopeRule(rule.score, rule.known, rule.bias, threshold)


def _newton(columns: Doubles, wanted: Doubles, importance: Doubles) -> Doubles:
    """Penalised logistic regression by Newton's method; the last column is the bias and goes free."""
    import numpy as np

    weights = np.zeros(columns.shape[1])
    penalty = np.diag([_PENALTY] * (columns.shape[1] - 1) + [1e-9])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(columns @ weights, -30, 30)))
        gradient = columns.T @ (importance * (p - wanted)) + penalty @ weights
        curve = (columns * (importance * p * (1 - p))[:, None]).T @ columns + penalty
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(weights)), gradient)
        weights -= np.clip(step, -2, 2)
        if float(np.abs(step).max()) < 1e-9:
            break
    return weights
