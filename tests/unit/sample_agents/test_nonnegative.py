"""The non-negative fit against every choice of columns there is, and against what makes an answer the answer."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from sample_agents.mix_model.nonnegative import nonnegative


def system(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A positive definite matrix whose columns move together more or less, and a right side of either sign."""
    source = np.random.default_rng(seed)
    count = int(source.integers(1, 8))
    common = source.normal(size=(60, 2)) @ source.uniform(0.0, 1.0, size=(2, count))
    columns = common + (1.0, 0.2, 0.01)[seed % 3] * source.normal(size=(60, count))
    columns /= np.sqrt((columns**2).sum(axis=0))
    target = columns @ source.normal(size=count) + 0.3 * source.normal(size=60)
    return columns.T @ columns + 1e-4 * np.eye(count), columns.T @ target * 10.0 ** int(source.integers(-6, 7))


def error(left: np.ndarray, right: np.ndarray, held: np.ndarray) -> float:
    return float(held @ left @ held - 2.0 * right @ held)


def best_of_all(left: np.ndarray, right: np.ndarray) -> float:
    """The least error over all choices of columns whose unconstrained fit is non-negative."""
    found = [0.0]
    for size in range(1, len(right) + 1):
        for chosen in combinations(range(len(right)), size):
            part = np.ix_(chosen, chosen)
            values = np.linalg.solve(left[part], right[list(chosen)])
            if (values >= 0.0).all():
                found.append(error(left[part], right[list(chosen)], values))
    return min(found)


@pytest.mark.parametrize("seed", range(120))
def test_no_choice_of_columns_does_better(seed: int) -> None:
    left, right = system(seed)
    held = nonnegative(left, right)
    assert (held >= 0.0).all()
    assert error(left, right, held) == pytest.approx(best_of_all(left, right), rel=1e-9, abs=1e-12)
    gain = right - left @ held
    scale = float(np.abs(right).max())
    assert (gain <= 1e-9 * scale).all()  # nothing is gained by more of any column
    assert np.abs(gain[held > 0.0]).max(initial=0.0) <= 1e-9 * scale  # nor by less of one that is used


def test_some_systems_have_columns_that_come_and_go() -> None:
    """Otherwise the above would say nothing about the difficult half of the method."""
    held = [nonnegative(*system(seed)) for seed in range(120)]
    assert sum(bool((each == 0.0).any() and (each > 0.0).any()) for each in held) > 40


def test_columns_without_variation_or_use_are_zero() -> None:
    left = np.diag([1.0001, 0.0001])
    assert nonnegative(left, np.array([0.5, 0.0])).tolist() == [pytest.approx(0.5 / 1.0001), 0.0]
    assert nonnegative(left, np.zeros(2)).tolist() == [0.0, 0.0]
    assert nonnegative(np.zeros((0, 0)), np.zeros(0)).tolist() == []
