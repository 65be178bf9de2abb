"""A change of what decisions are made by is on record before the first decision that is made by it."""

from __future__ import annotations

import gc
from datetime import UTC, datetime

import pytest

from engine.adapters.memory import FixedClock, MemoryAuditLog
from engine.domain.audit import AuditRecord
from engine.domain.policy import PlanPolicyDecision, PlanPolicyRequest
from engine.evidence.in_force import InForceRecords
from engine.ports.policy import PolicyText
from policy.engine import GovernedPolicyEngine
from policy.library import InForce, PolicyLibrary
from policy.on_record import RecordingPolicyEngine
from tests.unit.policy.conftest import CATALOG, Gate, tenant

CLOCK = FixedClock(datetime(2026, 11, 23, 9, tzinfo=UTC))
STEP = {"id": "notes", "capability": "rag.search", "inputs": {"query": "budget"}}
KILL = PolicyText("platform/kill.cedar", '@id("plat.kill") forbid (principal, action, resource);')


class Watching(GovernedPolicyEngine):
    """Notes how many records there were when each decision was made."""

    def __init__(self, found: PolicyLibrary, audit: MemoryAuditLog) -> None:
        super().__init__(CATALOG, found)
        self._log = audit
        self.seen: list[int] = []

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        self.seen.append(len(await of(self._log, "policy.changed")))
        return await super().decide_plan(request)


async def of(audit: MemoryAuditLog, kind: str) -> list[AuditRecord]:
    return [r for r in await audit.read("contoso", after_seq=0, limit=100) if r.type.value == kind]


def recording(gate: Gate, audit: MemoryAuditLog) -> Watching:
    """Puts the recording decision point into the gate; returns the one that decides behind it."""
    inner = Watching(gate.library, audit)
    gate.engine = RecordingPolicyEngine(inner, gate.library, CATALOG, InForceRecords(audit, CLOCK))  # type: ignore[assignment]  # a PolicyEngine
    return inner


async def test_policies_and_configuration_are_on_record_once_per_change(gate: Gate) -> None:
    audit = MemoryAuditLog()
    inner = recording(gate, audit)
    decision = await gate.plan(STEP)
    await gate.plan(STEP)
    (first,) = await of(audit, "policy.changed")
    assert first.body["policy_set"] == decision.policy_set_hash
    gate.texts.platform = (*gate.texts.platform, KILL)
    killed = await gate.plan(STEP)
    assert not killed.allows
    _, second = await of(audit, "policy.changed")
    assert second.body["policy_set"] == killed.policy_set_hash
    assert second.body["from_version_sha256"] == first.body["version_sha256"]
    assert inner.seen == [1, 1, 2], "on record before it decides"
    await gate.plan(STEP, tenant=tenant(version=2, display_name="Contoso AG"))
    versions = [record.body["version"] for record in await of(audit, "config.changed")]
    assert versions == [1, 2]


async def test_without_policies_nothing_is_said_to_be_in_force(gate: Gate) -> None:
    audit = MemoryAuditLog()
    recording(gate, audit)
    gate.texts.broken = True
    assert not (await gate.plan(STEP)).allows
    assert await of(audit, "policy.changed") == []


def in_memory() -> list[InForce]:
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, InForce)]


async def test_what_the_library_let_go_is_kept_nowhere_else(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled policies are large: the library says of how many tenants they are held."""
    monkeypatch.setattr("policy.library._MAX_LAYERS", 3)
    recording(gate, MemoryAuditLog())
    others = in_memory()
    for number in range(8):
        await gate.plan(STEP, tenant=tenant(tenant_id=f"tenant-{number}"))
    assert 1 <= len(in_memory()) - len(others) <= 3
