"""The floor of routing without a model, on a sample of the public data. bench/routing.py measures all of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.routing import SETS, DataSet, Files, measure, shots
from tests.contract.plan_data.data import data_root


def sample(name: str) -> DataSet:
    data: Path = data_root()
    if not (data / "intents").is_dir():
        pytest.skip("routing data is absent: set LIVOA_TEST_DATA")
    return SETS[name](Files(data))


def of_labels(data: DataSet, labels: set[str]) -> DataSet:
    parts = {part: [each for each in getattr(data, part) if each[0] in labels] for part in ("train", "valid", "test")}
    return replace(data, **parts)


def test_forty_intents_of_clinc150_stay_above_the_floor():
    everything = sample("clinc150")
    labels = set(sorted({label for label, _ in everything.train})[:40])
    data = of_labels(everything, labels)
    found = measure(data, shots(data.train, 50), None)
    assert found["in_scope_accuracy"] >= 0.90
    assert found["out_of_scope"]["oos"]["recall"] >= 0.70
    assert found["p50_ms"] < 50


def test_a_small_catalog_with_five_examples_each_finds_most_and_turns_away_other_subjects():
    data = sample("clincbank")
    found = measure(data, shots(data.train, 5), None)
    assert found["accuracy"] >= 0.75
    assert found["out_of_scope"]["ood-oos"]["recall"] >= 0.70
