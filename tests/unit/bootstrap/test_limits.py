"""The composition root always gives real limits, never the ones that let everything through."""

from __future__ import annotations

from pathlib import Path

from engine.adapters.admission import BlockAdmission
from engine.adapters.circuits import EntityCircuits
from engine.adapters.durable_entities import ClientEntities
from engine.bootstrap.container import build_deps
from engine.bootstrap.settings import load_settings
from planner_graph.planner import LangGraphPlanner


def test_the_door_the_circuits_and_the_way_to_the_entities_are_real(tmp_path: Path) -> None:
    deps = build_deps(load_settings({"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path)}))
    assert isinstance(deps.admission, BlockAdmission)
    assert isinstance(deps.circuits, EntityCircuits)
    assert isinstance(deps.entities, ClientEntities)
    assert deps.circuits._entities is deps.entities


async def test_the_planner_is_told_of_circuits_that_are_open(tmp_path: Path) -> None:
    deps = build_deps(load_settings({"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path)}))
    tenant = await deps.tenants.get("contoso")
    assert tenant is not None
    name = tenant.enabled_capabilities[0]
    for number in range(5):
        passed = await deps.circuits.permit(tenant, deps.catalog.capabilities[name], f"call-{number}")
        await deps.circuits.report(passed, "failure")
    assert isinstance(deps.planner, LangGraphPlanner)
    assert dict(deps.planner._circuits(tenant)) == {name: ""}
