"""What all chaos shares: its clock is virtual, so nothing may sleep by the wall clock."""

from __future__ import annotations

import pytest

from activities import apart
from engine.step_runner import persistence


@pytest.fixture(autouse=True)
def _no_real_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock moves on when nothing of the world is under way; a pause it does not know of would cost an hour of its time.
    monkeypatch.setattr(persistence, "PAUSES_S", (0.0,) * len(persistence.PAUSES_S))
    monkeypatch.setattr(apart, "_PAUSES_S", (0.0,) * len(apart._PAUSES_S))
