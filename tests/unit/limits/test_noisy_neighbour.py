"""What the limits promise together, in virtual time: a noisy neighbour costs a quiet tenant nothing, an outage few calls."""

from __future__ import annotations

import pytest

from bench import breaker, quota


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_tenant_at_ten_times_its_limit_raises_a_quiet_ones_p95_by_less_than_a_fifth(seed: int) -> None:
    found = await quota.compare(minutes=2, seed=seed)
    assert found["rise_percent"] < 20, found
    assert found["limited"]["quiet"]["refused"] == 0, found
    assert found["limited"]["noisy"]["most_at_once"] <= 20, found
    # The model can tell: without the limits it is the disaster that they are there for.
    assert found["rise_percent_without_limits"] > 100, found


@pytest.mark.parametrize("seed", range(1, 6))
async def test_in_an_outage_few_calls_reach_what_is_dead_and_it_recovers(seed: int) -> None:
    found = await breaker.measure(seed)
    assert found["offered"] > 400, found
    assert found["hits"] <= 40, found
    assert found["most_probes_at_once"] <= 2, found
    assert found["recovered_s"] is not None, found
    assert found["recovered_s"] <= 75, found
    assert found["entity_operations"] < found["calls"] / 4, found
