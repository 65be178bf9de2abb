"""A hundred runs of one tenant at once, over two connections to one database: one chain without gap or fork, anchored."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from engine.adapters.files.anchors import FilesAnchors
from engine.adapters.files.signing_key import FileSigner
from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database, SqlAuditLog
from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.evidence.anchored import verify
from engine.evidence.checkpoints import Checkpointer
from engine.evidence.signed import public_keys

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
RUNS = 100
KINDS = (AuditType.RUN_SUBMITTED, AuditType.DISPATCH_INTENDED, AuditType.DISPATCH_RESULT, AuditType.RUN_FINISHED)


async def test_a_hundred_runs_at_once_make_one_chain(tmp_path: Path) -> None:
    clock, signer = FixedClock(NOW), FileSigner(tmp_path / "key.pem", create=True)
    anchors = FilesAnchors(tmp_path / "anchors")
    databases = [Database(f"sqlite:///{tmp_path / 'livoa.db'}", clock) for _ in range(2)]
    logs = [SqlAuditLog(database) for database in databases]
    makers = [Checkpointer(log, anchors, signer, clock) for log in logs]

    async def run(number: int) -> None:
        log, maker = logs[number % 2], makers[number % 2]
        for kind in KINDS:
            entry = AuditEntry(
                tenant_id="contoso",
                entry_id=f"run-{number}/{kind.value}",
                type=kind,
                at=NOW,
                run_id=f"run-{number}",
                actor="t:a",
            )
            first, again = await asyncio.gather(log.append(entry), log.append(entry))
            assert first == again
        await maker.make("contoso")

    await asyncio.gather(*map(run, range(RUNS)))
    last = await makers[0].make("contoso")
    assert last is not None
    records: list[AuditRecord] = []
    while page := await logs[0].read("contoso", after_seq=len(records), limit=1_000):
        records.extend(page)
    kept = await anchors.read("contoso", after=0, limit=1_000)
    report = verify(records, "contoso", kept, public_keys(await signer.public_pem()))
    assert report.findings == []
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert sum(record.type is not AuditType.CHECKPOINT for record in records) == RUNS * len(KINDS)
    assert [anchor.number for anchor in kept] == list(range(1, len(kept) + 1))
    assert report.anchored == last.size
    for database in databases:
        await database.dispose()
