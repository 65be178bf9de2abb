"""Sales on saturated spend: non-negative ridge regression beside freely signed controls.

The controls (level, trend, two annual waves, promotions) are projected out first. By the Frisch-Waugh-Lovell theorem this
gives the same media coefficients as one joint regression, and lets only the media coefficients be held at zero or above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sample_agents.mix_model.nonnegative import nonnegative

if TYPE_CHECKING:
    from sample_agents.mix_model.curves import Series

WEEKS_A_YEAR = 365.25 / 7
RIDGE = 1e-4
"""Penalty relative to a column's own sum of squares: it steadies columns that move together, with a bias of about 0.01 %."""
_MAX_FOLDS = 8
_FOLD_WEEKS = 10
_MIN_TRAIN_WEEKS = 52
_FLAT = 1e-9


def controls(first_week: int, promotion: Series) -> Any:
    """The control columns for the weeks from week number ``first_week`` on, shape (weeks, 7)."""
    import numpy as np

    week = np.arange(first_week, first_week + len(promotion), dtype=float)
    angle = 2.0 * np.pi * week / WEEKS_A_YEAR
    waves = [function(order * angle) for order in (1, 2) for function in (np.sin, np.cos)]
    return np.column_stack([np.ones(len(week)), (week - first_week) / WEEKS_A_YEAR, *waves, promotion])


def unexplained(columns: Any, control_columns: Any) -> Any:
    """What the controls leave of each column (or of one series). Promotions may be absent, hence least squares."""
    import numpy as np

    return columns - control_columns @ np.linalg.lstsq(control_columns, columns, rcond=None)[0]


def media_coefficients(columns: Any, sales: Any, control_columns: Any) -> Any:
    """Sales per unit of each column, none below zero; zero for a column without variation of its own."""
    import numpy as np

    residuals = unexplained(columns, control_columns)
    norms = np.sqrt((residuals**2).sum(axis=0))
    norms[norms < _FLAT] = np.inf
    scaled = residuals / norms
    target = unexplained(sales, control_columns)
    return nonnegative(scaled.T @ scaled + RIDGE * np.eye(scaled.shape[1]), scaled.T @ target) / norms


def predict(columns: Any, sales: Any, control_columns: Any, train: int) -> Any:
    """Predictions for every week of a model that saw the first ``train`` weeks."""
    import numpy as np

    seen = slice(0, train)
    media = media_coefficients(columns[seen], sales[seen], control_columns[seen])
    rest = sales[seen] - columns[seen] @ media
    weights = np.linalg.lstsq(control_columns[seen], rest, rcond=None)[0]
    return columns @ media + control_columns @ weights


def validate(columns: Any, sales: Any, control_columns: Any) -> tuple[float, float]:
    """Root mean squared error and mean absolute percentage error (a fraction) over weeks that the model had not seen.

    Expanding windows: each of the last spans of ten weeks, at most eight, is predicted from everything before it, which is a
    year or more. Needs 62 weeks.
    """
    import numpy as np

    weeks = len(sales)
    folds = min(_MAX_FOLDS, (weeks - _MIN_TRAIN_WEEKS) // _FOLD_WEEKS)
    first = weeks - folds * _FOLD_WEEKS
    spans = [slice(start, start + _FOLD_WEEKS) for start in range(first, weeks, _FOLD_WEEKS)]
    guess = np.concatenate([predict(columns, sales, control_columns, span.start)[span] for span in spans])
    truth = sales[first:]
    return float(np.sqrt(((truth - guess) ** 2).mean())), percentage_error(truth, guess)


def percentage_error(truth: Series, guess: Series) -> float:
    """Mean absolute error relative to the truth, as a fraction. A week without sales makes it enormous."""
    import numpy as np

    return float((np.abs(truth - guess) / np.maximum(np.abs(truth), np.finfo(float).eps)).mean())


def explained(truth: Series, guess: Series) -> float:
    """The share of the truth's variance that the guess explains (R²); 0 for a truth that does not vary."""
    around = float(((truth - truth.mean()) ** 2).sum())
    return 1.0 - float(((truth - guess) ** 2).sum()) / around if around > 0.0 else 0.0
