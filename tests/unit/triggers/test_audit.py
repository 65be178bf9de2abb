"""Looking at the evidence over HTTP: who may, what is shown, and that looking is on record."""

from __future__ import annotations

import pytest

from engine.domain.audit import AuditRecord
from engine.domain.principal import Role
from engine.evidence import verify
from tests.unit.triggers.test_runs import planned
from tests.unit.triggers.world import World

AUDITOR = (Role.AUDIT_READ,)


async def test_an_auditor_reads_a_run_and_the_chain_and_both_are_on_record(world: World) -> None:
    run_id = await planned(world)
    await world.post(f"/api/runs/{run_id}/suspend")
    token = world.token("contoso", "audra", AUDITOR)
    of_run = await world.get(f"/api/runs/{run_id}/audit", token=token)
    assert [record["type"] for record in of_run.json["records"]] == ["run.submitted", "run.suspended", "audit.read"]
    chain = await world.get("/api/audit?after=0&limit=2", token=token)
    assert (len(chain.json["records"]), chain.json["next_after"], chain.json["more"]) == (2, 2, True)
    rest = await world.get("/api/audit?after=2", token=token)
    records = [AuditRecord.model_validate(r) for r in [*chain.json["records"], *rest.json["records"]]]
    assert verify(records, "contoso") == []
    assert [record.type.value for record in records].count("audit.read") == 3


@pytest.mark.parametrize("path", ["/api/audit", "/api/runs/{}/audit"])
async def test_who_is_no_auditor_sees_nothing(world: World, path: str) -> None:
    run_id = await planned(world)
    roles = tuple(role for role in Role if role is not Role.AUDIT_READ)
    answer = await world.get(path.format(run_id), token=world.token("contoso", "ana", roles))
    assert (answer.status, answer.code) == (403, "auth.role_missing")


async def test_what_cannot_be_recorded_is_not_shown(world: World) -> None:
    run_id = await planned(world)

    async def down(*_: object) -> None:
        raise OSError("down")

    world.audit.append = down  # type: ignore[assignment,method-assign]
    answer = await world.get(f"/api/runs/{run_id}/audit", token=world.token("contoso", "audra", AUDITOR))
    assert (answer.status, answer.code) == (503, "audit.unavailable")
