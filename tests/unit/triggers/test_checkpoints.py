"""Checkpoints over HTTP and by the clock: who may ask for one, what is served, and that one tenant's trouble is its own."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from engine.adapters.files.anchors import FilesAnchors
from engine.adapters.files.signing_key import FileSigner
from engine.adapters.memory import MemoryAuditLog, MemoryTenantDirectory
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.checkpoint import Anchor, Checkpoint
from engine.domain.principal import Role
from engine.domain.status import RunStatus
from engine.domain.tenant import TenantConfig
from engine.evidence.anchored import verify
from engine.evidence.checkpoints import Checkpointer
from engine.evidence.signed import public_keys
from engine.evidence.watched import WatchedAuditLog
from engine.ports.checkpoints import NoCheckpoints
from tests.support.world import World as EngineWorld
from tests.support.world import plan_of, step
from tests.unit.triggers.world import World
from triggers.timer_checkpoints import AT_ONCE, CheckpointReport, checkpoint_all

AUDITOR = (Role.AUDIT_READ,)


@pytest.fixture
def signer(tmp_path: Path) -> FileSigner:
    return FileSigner(tmp_path / "key.pem", create=True)


@pytest.fixture
def anchors(tmp_path: Path) -> FilesAnchors:
    return FilesAnchors(tmp_path / "anchors")


@pytest.fixture
def anchored(world: World, signer: FileSigner, anchors: FilesAnchors) -> World:
    world.with_deps(checkpoints=Checkpointer(world.audit, anchors, signer, world.clock))
    return world


async def test_an_auditor_has_a_checkpoint_made_and_checks_the_chain_against_it(
    anchored: World, signer: FileSigner
) -> None:
    await anchored.submitted()
    token = anchored.token("contoso", "audra", AUDITOR)
    made = await anchored.post("/api/audit/checkpoints", token=token)
    assert (made.status, made.json["number"], made.json["size"]) == (200, 1, 1)
    assert (await anchored.post("/api/audit/checkpoints", token=token)).json == made.json
    page = (await anchored.get("/api/audit/checkpoints?after=0&limit=1", token=token)).json
    assert (page["next_after"], page["more"]) == (1, True)
    kept = [Anchor(c["number"], c["jws"]) for c in page["checkpoints"]]
    records = await anchored.audit.read("contoso", after_seq=0, limit=99)
    report = verify(records, "contoso", kept, public_keys(await signer.public_pem()))
    assert (report.findings, report.anchored) == ([], 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_is_no_auditor_may_not(anchored: World, method: str) -> None:
    roles = tuple(role for role in Role if role is not Role.AUDIT_READ)
    answer = await anchored.send(method, "/api/audit/checkpoints", token=anchored.token("contoso", "ana", roles))
    assert (answer.status, answer.code) == (403, "auth.role_missing")


async def test_a_host_that_makes_none_says_so(world: World) -> None:
    await world.submitted()
    token = world.token("contoso", "audra", AUDITOR)
    answer = await world.post("/api/audit/checkpoints", token=token)
    assert (answer.status, answer.code) == (409, "checkpoint.none")
    assert (await world.get("/api/audit/checkpoints", token=token)).json["checkpoints"] == []


async def test_a_chain_that_was_cut_is_not_signed_and_the_auditor_hears_it(anchored: World) -> None:
    await anchored.submitted()
    token = anchored.token("contoso", "audra", AUDITOR)
    await anchored.post("/api/audit/checkpoints", token=token)
    anchored.audit._chains["contoso"].clear()
    answer = await anchored.post("/api/audit/checkpoints", token=token)
    assert (answer.status, answer.code) == (500, "checkpoint.chain_broken")


async def test_the_clock_has_every_tenant_anchored_whose_chain_has_grown(
    anchored: World, caplog: pytest.LogCaptureFixture
) -> None:
    for tenant in ("contoso", "fabrikam"):
        entry = AuditEntry(
            tenant_id=tenant, entry_id="e", type=AuditType.SYNTHESIS, at=anchored.clock.now(), actor="t:a"
        )
        await anchored.audit.append(entry)
    assert await checkpoint_all(anchored.deps) == CheckpointReport(anchored=2)
    anchored.audit._chains["contoso"].clear()
    with caplog.at_level(logging.ERROR):
        assert await checkpoint_all(anchored.deps) == CheckpointReport(anchored=1, failed=1)
    told = [vars(r) for r in caplog.records if r.name == "livoa.audit"]
    assert [(r["tenant_id"], r["code"]) for r in told] == [("contoso", "checkpoint.chain_broken")]


async def test_a_slow_chain_keeps_no_other_waiting_and_not_all_are_asked_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggers.timer_checkpoints.TENANT_TIMEOUT_S", 0.5)
    under_way: set[str] = set()
    most, asked = 0, []

    class Slow(NoCheckpoints):
        async def make(self, tenant_id: str) -> Checkpoint | None:
            nonlocal most
            under_way.add(tenant_id)
            most = max(most, len(under_way))
            asked.append(tenant_id)
            try:
                await asyncio.sleep(60 if tenant_id == "tenant-3" else 0.02)
            finally:
                under_way.discard(tenant_id)
            return None

    class Many(MemoryTenantDirectory):
        async def all(self) -> tuple[TenantConfig, ...]:
            (one, *_) = await world.deps.tenants.all()
            return tuple(one.model_copy(update={"tenant_id": f"tenant-{n}"}) for n in range(40))

    deps = replace(world.deps, checkpoints=Slow(), tenants=Many(()))
    assert await checkpoint_all(deps) == CheckpointReport(anchored=0, failed=1)
    assert sorted(asked) == sorted(f"tenant-{n}" for n in range(40))
    assert 1 < most <= AT_ONCE


async def test_the_end_of_a_run_is_anchored_and_does_not_hang_on_it(
    tmp_path: Path, signer: FileSigner, anchors: FilesAnchors
) -> None:
    world = EngineWorld()
    world.deps = replace(world.deps, checkpoints=Checkpointer(world.deps.audit, anchors, signer, world.clock))
    await world.submit(plan_of(step("a")))
    await world.perform("a")
    assert (await world.finish(RunStatus.SUCCEEDED)).status is RunStatus.SUCCEEDED
    assert (await world.audit())[-2:] == ["run.finished", "checkpoint"]

    world = EngineWorld()
    nowhere = FilesAnchors(tmp_path / "key.pem")  # a file, where a folder should be
    world.deps = replace(world.deps, checkpoints=Checkpointer(world.deps.audit, nowhere, signer, world.clock))
    await world.submit(plan_of(step("a")))
    assert (await world.finish(RunStatus.CANCELLED, code="run.cancelled")).status is RunStatus.CANCELLED
    assert (await world.audit())[-1] == "run.finished"


async def test_every_so_many_records_are_anchored_without_the_clock(
    world: World, signer: FileSigner, anchors: FilesAnchors
) -> None:
    inner = MemoryAuditLog()
    log = WatchedAuditLog(inner, Checkpointer(inner, anchors, signer, world.clock), every_records=10)
    for number in range(25):
        entry = AuditEntry(
            tenant_id="contoso", entry_id=f"e{number}", type=AuditType.SYNTHESIS, at=world.clock.now(), actor="t:a"
        )
        assert (await log.append(entry)).entry_id == f"e{number}"
    assert len(await anchors.read("contoso", after=0, limit=9)) == 2
    records = await log.read("contoso", after_seq=0, limit=99)
    assert [r.seq for r in records if r.type is AuditType.CHECKPOINT] == [11, 21]


async def test_an_effect_beyond_recall_is_anchored_before_it_happens_or_does_not_happen(
    tmp_path: Path, signer: FileSigner, anchors: FilesAnchors
) -> None:
    world = EngineWorld()
    world.deps = replace(world.deps, checkpoints=Checkpointer(world.deps.audit, anchors, signer, world.clock))
    await world.submit(plan_of(step("a"), step("tell", "mail.send")))
    await world.perform("a")
    assert "checkpoint" not in await world.audit()
    await world.perform("tell")
    assert (await world.audit())[-3:] == ["dispatch.intended", "checkpoint", "dispatch.result"]

    world = EngineWorld()
    nowhere = FilesAnchors(tmp_path / "key.pem")  # a file, where a folder should be
    world.deps = replace(world.deps, checkpoints=Checkpointer(world.deps.audit, nowhere, signer, world.clock))
    await world.submit(plan_of(step("tell", "mail.send")))
    outcome = await world.perform("tell")
    assert (outcome.status, outcome.code, outcome.retryable) == ("failed", "audit.unavailable", True)
    assert world.invoker.calls == []
