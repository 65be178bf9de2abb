"""What is in force is on record once for each change, whoever notices it and however often."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from engine.adapters.memory import FixedClock, MemoryAuditLog
from engine.domain.audit import AuditEntry, AuditRecord
from engine.domain.errors import LivoaError
from engine.evidence.in_force import VERSION, InForceRecords

CLOCK = FixedClock(datetime(2026, 11, 23, 9, tzinfo=UTC))


async def story(audit: MemoryAuditLog, tenant: str = "contoso") -> list[tuple[str, str, str | None]]:
    records = await audit.read(tenant, after_seq=0, limit=1_000)
    return [(r.type.value, r.body[VERSION], r.body["from_version_sha256"]) for r in records]


async def test_a_version_is_recorded_once_and_a_return_to_it_again() -> None:
    audit = MemoryAuditLog()
    records = InForceRecords(audit, CLOCK)
    for version in ("a", "a", "b", "b", "a", "b"):
        await records.note("contoso", "policy", version, {"policy_set": version})
    assert await story(audit) == [
        ("policy.changed", "a", None),
        ("policy.changed", "b", "a"),
        ("policy.changed", "a", "b"),
        ("policy.changed", "b", "a"),
    ]


@pytest.mark.parametrize("changes", [1, 2, 3, 7, 8, 9, 40])
async def test_a_process_that_starts_finds_the_last_of_many(changes: int) -> None:
    audit = MemoryAuditLog()
    first = InForceRecords(audit, CLOCK)
    for number in range(changes):
        await first.note("contoso", "config", f"v{number}", {})
    await InForceRecords(audit, CLOCK).note("contoso", "config", f"v{changes - 1}", {})
    assert len(await story(audit)) == changes
    await InForceRecords(audit, CLOCK).note("contoso", "config", "new", {})
    assert (await story(audit))[-1] == ("config.changed", "new", f"v{changes - 1}")


async def test_many_processes_with_the_same_news_write_it_once() -> None:
    audit = MemoryAuditLog()
    await InForceRecords(audit, CLOCK).note("contoso", "policy", "a", {})
    processes = [InForceRecords(audit, CLOCK) for _ in range(20)]
    await asyncio.gather(*(one.note("contoso", "policy", "b", {}) for one in processes))
    assert [version for _, version, _ in await story(audit)] == ["a", "b"]


async def test_an_old_and_a_new_version_side_by_side_do_not_take_turns() -> None:
    audit = MemoryAuditLog()
    old, new = InForceRecords(audit, CLOCK), InForceRecords(audit, CLOCK)
    for _ in range(10):
        await old.note("contoso", "policy", "old", {})
        await new.note("contoso", "policy", "new", {})
    assert [version for _, version, _ in await story(audit)] == ["old", "new"]


async def test_tenants_and_kinds_do_not_mix() -> None:
    audit = MemoryAuditLog()
    records = InForceRecords(audit, CLOCK)
    await records.note("contoso", "policy", "a", {})
    await records.note("contoso", "config", "a", {})
    await records.note("fabrikam", "policy", "a", {})
    assert [kind for kind, _, _ in await story(audit)] == ["policy.changed", "config.changed"]
    assert len(await story(audit, "fabrikam")) == 1


async def test_what_could_not_be_written_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    class Full(MemoryAuditLog):
        down = True

        async def append(self, entry: AuditEntry) -> AuditRecord:
            if self.down:
                raise OSError("disk full")
            return await super().append(entry)

    audit = Full()
    records = InForceRecords(audit, CLOCK)
    await records.note("contoso", "policy", "a", {})
    assert await story(audit) == []
    assert not records.is_noted("contoso", "policy", "a")
    audit.down = False
    await records.note("contoso", "policy", "a", {})
    assert await story(audit) == [("policy.changed", "a", None)]
    assert "cannot be audited" in caplog.text


async def test_an_audit_log_that_is_away_is_one_line_a_minute_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    class Down(MemoryAuditLog):
        async def find(self, tenant_id: str, entry_id: str) -> AuditRecord | None:
            raise LivoaError("store.unavailable", "no", status=503)

    clock = FixedClock()
    records = InForceRecords(Down(), clock)
    for _ in range(50):
        await records.note("contoso", "policy", "a", {})
    clock.advance(60)
    for _ in range(2):
        await records.note("fabrikam", "policy", "a", {})
    said = "what is in force cannot be audited: store.unavailable"
    assert caplog.messages == [said, f"{said}; 49 more times since this was said last"]
    assert [record.exc_info for record in caplog.records] == [None, None]
