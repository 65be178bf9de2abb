"""The seeds notice what is planted into the commits around a call: each fault of ``call_faults``, by the sentence it breaks."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from engine.adapters.sql import SqlCallLedger
from tests.chaos.call_faults import FAULTS
from tests.chaos.harness import Chaos
from tests.chaos.invariants import broken

MOST_SEEDS = 150


@pytest.mark.thorough
@pytest.mark.parametrize(("ledger", "sentence"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
async def test_a_planted_fault_is_noticed(ledger: type[SqlCallLedger], sentence: str, tmp_path: Path) -> None:
    logging.disable(logging.CRITICAL)
    try:
        for seed in range(MOST_SEEDS):
            (tmp_path / str(seed)).mkdir()
            chaos = Chaos(seed, "sqlite", tmp_path / str(seed))
            chaos.raw.ledger = ledger
            try:
                said = broken(await chaos.play())
            except AssertionError:
                continue
            if any(line.startswith(sentence) for line in said):
                print(seed, said[0])
                return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail("nobody noticed")
