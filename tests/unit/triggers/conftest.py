"""One world per test."""

from __future__ import annotations

import pytest

from tests.unit.triggers.world import World


@pytest.fixture
def world() -> World:
    return World()
