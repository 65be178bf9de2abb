"""What a change of the configuration means for a run that is under way: permissions at once, limits as they were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.adapters.memory import MemoryTenantDirectory, MemoryTenantVersions
from engine.adapters.tenant_configs import LOOK_AGAIN_AFTER_S, VersionedTenants
from engine.domain.outcomes import Denied, Succeeded
from engine.domain.tenant import Bounds
from engine.domain.tenant_changes import config_sha256
from engine.ports.tenant_configs import TenantVersion
from tests.support.world import World, plan_of, step

PLAN = plan_of(step("a"), step("b", needs=["a"]))


class Changing:
    """A world whose tenant is changed by its admin in another process."""

    def __init__(self) -> None:
        self.world = World()
        store = MemoryTenantVersions()
        pages = MemoryTenantDirectory([self.world.tenant])
        here = VersionedTenants(pages, store, self.world.clock)
        self._elsewhere = VersionedTenants(pages, store, self.world.clock)
        self.world.deps = replace(self.world.deps, tenants=here)

    async def change(self, **fields: Any) -> None:
        config = self.world.tenant.model_copy(update=fields | {"version": 2})
        version = TenantVersion(config, config_sha256(config), "tid:ana", self.world.clock.now())
        await self._elsewhere.add("contoso", version)
        self.world.clock.advance(LOOK_AGAIN_AFTER_S)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": "suspended"}, "policy.tenant_suspended"),
        ({"enabled_capabilities": ()}, "policy.capability_not_enabled"),
    ],
)
async def test_what_a_tenant_may_no_longer_do_stops_the_next_step(fields: dict[str, Any], code: str) -> None:
    changing = Changing()
    assert (await changing.world.submit(PLAN))["status"] == "planned"
    assert isinstance(await changing.world.perform("a"), Succeeded)
    await changing.change(**fields)
    outcome = await changing.world.perform("b")
    assert isinstance(outcome, Denied)
    assert outcome.code == code
    assert len(changing.world.invoker.calls) == 1


async def test_limits_that_are_lowered_leave_a_planned_run_alone() -> None:
    changing = Changing()
    assert (await changing.world.submit(PLAN))["status"] == "planned"
    before = await changing.world.deps.budgets.state("contoso", "run-1")
    await changing.change(bounds=Bounds(max_steps=1, max_depth=1, max_parallel_steps=1, max_cost_micro_usd=0))
    assert isinstance(await changing.world.perform("a"), Succeeded)
    assert isinstance(await changing.world.perform("b"), Succeeded)
    after = await changing.world.deps.budgets.state("contoso", "run-1")
    assert before is not None
    assert after is not None
    assert after.limit_micro_usd == before.limit_micro_usd


async def test_and_hold_for_the_next_one() -> None:
    changing = Changing()
    await changing.change(bounds=Bounds(max_steps=1))
    assert (await changing.world.submit(PLAN))["status"] == "rejected"
