"""Checkpoints are made once, survive every crash, never fork, and are never made over a chain that was tampered with."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.adapters.files.anchors import FilesAnchors
from engine.adapters.files.signing_key import FileSigner, public_file
from engine.adapters.memory import FixedClock, MemoryAuditLog
from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.domain.checkpoint import Anchor, Checkpoint
from engine.domain.errors import LivoaError
from engine.evidence.anchored import verify
from engine.evidence.checkpoints import Checkpointer
from engine.evidence.signed import public_keys, take_apart

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)


class CrashingAudit(MemoryAuditLog):
    """Fails the notes while ``down``."""

    down = False

    async def append(self, entry: AuditEntry) -> AuditRecord:
        if self.down and entry.type is AuditType.CHECKPOINT:
            raise OSError("killed here")
        return await super().append(entry)


@dataclass
class Desk:
    audit: CrashingAudit
    anchors: FilesAnchors
    signer: FileSigner
    checkpointer: Checkpointer
    written: int = 0

    async def write(self, count: int, tenant: str = "contoso") -> None:
        for _ in range(count):
            self.written += 1
            await self.audit.append(
                AuditEntry(
                    tenant_id=tenant, entry_id=f"e{self.written}", type=AuditType.SYNTHESIS, at=NOW, actor="tid:ana"
                )
            )

    async def records(self, tenant: str = "contoso") -> tuple[AuditRecord, ...]:
        return await self.audit.read(tenant, after_seq=0, limit=1_000)

    async def findings(self) -> list[str]:
        anchors = await self.anchors.read("contoso", after=0, limit=1_000)
        report = verify(await self.records(), "contoso", anchors, public_keys(await self.signer.public_pem()))
        return [finding.code for finding in report.findings]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    audit, anchors = CrashingAudit(), FilesAnchors(tmp_path / "anchors")
    signer = FileSigner(tmp_path / "keys" / "signing-key.pem", create=True)
    return Desk(audit, anchors, signer, Checkpointer(audit, anchors, signer, FixedClock(NOW)))


async def test_a_checkpoint_covers_every_record_and_is_noted_behind_them(desk: Desk) -> None:
    await desk.write(5)
    made = await desk.checkpointer.make("contoso")
    assert made is not None
    assert (made.number, made.size, made.head) == (1, 5, (await desk.records())[4].hash)
    note = (await desk.records())[5]
    anchor = await desk.anchors.latest("contoso")
    assert anchor is not None
    assert (note.type, note.body["number"], note.body["anchor_sha256"]) == (AuditType.CHECKPOINT, 1, anchor.sha256)
    assert await desk.findings() == []


async def test_nothing_new_makes_no_checkpoint_and_no_record(desk: Desk) -> None:
    assert await desk.checkpointer.make("contoso") is None
    await desk.write(3)
    made = await desk.checkpointer.make("contoso")
    assert [await desk.checkpointer.make("contoso") for _ in range(3)] == [made] * 3
    assert len(await desk.records()) == 4


async def test_checkpoints_stand_in_a_chain_of_their_own(desk: Desk) -> None:
    for count in (1, 2, 4, 7):
        await desk.write(count)
        await desk.checkpointer.make("contoso")
    anchors = await desk.anchors.read("contoso", after=0, limit=9)
    checkpoints = [take_apart(anchor.jws).checkpoint for anchor in anchors]
    assert [c.number for c in checkpoints] == [1, 2, 3, 4]
    assert [c.prev for c in checkpoints[1:]] == [a.sha256 for a in anchors[:-1]]
    assert [c.size for c in checkpoints] == [1, 4, 9, 17]
    assert await desk.findings() == []


async def test_a_crash_between_anchor_and_note_is_made_up_for_and_never_forks(desk: Desk) -> None:
    await desk.write(3)
    desk.audit.down = True
    with pytest.raises(OSError, match="killed here"):
        await desk.checkpointer.make("contoso")
    desk.audit.down = False
    await desk.write(2)
    made = await desk.checkpointer.make("contoso")
    assert made is not None
    assert made.number == 2
    notes = [r.body["number"] for r in await desk.records() if r.type is AuditType.CHECKPOINT]
    assert notes == [1, 2]
    assert await desk.findings() == []


async def test_any_number_of_makers_at_once_leave_one_sound_line(desk: Desk) -> None:
    await desk.write(4)

    async def work() -> None:
        for _ in range(3):
            await desk.write(1)
            await desk.checkpointer.make("contoso")

    await asyncio.gather(*(work() for _ in range(6)))
    anchors = await desk.anchors.read("contoso", after=0, limit=1_000)
    assert [anchor.number for anchor in anchors] == list(range(1, len(anchors) + 1))
    assert await desk.findings() == []


async def test_tenants_have_checkpoints_of_their_own(desk: Desk) -> None:
    await desk.write(2)
    await desk.write(3, "fabrikam")
    ours, theirs = await desk.checkpointer.make("contoso"), await desk.checkpointer.make("fabrikam")
    assert isinstance(ours, Checkpoint)
    assert isinstance(theirs, Checkpoint)
    assert (ours.tenant_id, ours.size, theirs.tenant_id, theirs.size) == ("contoso", 2, "fabrikam", 3)
    assert await desk.checkpointer.read("nobody", after=0, limit=9) == ()


def rewritten(audit: MemoryAuditLog, change: str) -> None:
    """What somebody with the store in hand can do."""
    chain = audit._chains["contoso"]
    match change:
        case "cut":
            del chain[2:]
        case "edit-new":
            chain[-1] = chain[-1].model_copy(update={"actor": "tid:eve"})
        case "replace":
            chain[4] = chain[4].model_copy(update={"hash": "f" * 64})


@pytest.mark.parametrize("change", ["cut", "edit-new", "replace"])
async def test_a_chain_that_does_not_continue_the_last_checkpoint_is_never_signed(desk: Desk, change: str) -> None:
    await desk.write(5)
    await desk.checkpointer.make("contoso")
    await desk.write(2)
    rewritten(desk.audit, change)
    with pytest.raises(LivoaError) as raised:
        await desk.checkpointer.make("contoso")
    assert raised.value.code == "checkpoint.chain_broken"
    assert len(await desk.anchors.read("contoso", after=0, limit=9)) == 1


async def test_an_anchor_that_was_removed_is_never_made_again(desk: Desk) -> None:
    for _ in range(2):
        await desk.write(2)
        await desk.checkpointer.make("contoso")
    desk.anchors.path("contoso", 2).unlink()
    await desk.write(1)
    with pytest.raises(LivoaError) as raised:
        await desk.checkpointer.make("contoso")
    assert raised.value.code == "checkpoint.anchor_missing"


async def test_an_anchor_of_another_key_is_not_continued(desk: Desk, tmp_path: Path) -> None:
    await desk.write(2)
    eve = FileSigner(tmp_path / "eve" / "k.pem", create=True)
    await Checkpointer(desk.audit, desk.anchors, eve, FixedClock(NOW)).make("contoso")
    await desk.write(2)
    with pytest.raises(LivoaError) as raised:
        await desk.checkpointer.make("contoso")
    assert raised.value.code == "checkpoint.signature_invalid"


async def test_an_anchor_that_names_our_key_and_was_signed_by_another_is_not_continued(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.write(2)
    eve = FileSigner(tmp_path / "eve" / "k.pem", create=True)
    eve.key_id = desk.signer.key_id  # type: ignore[method-assign]
    await Checkpointer(desk.audit, desk.anchors, eve, FixedClock(NOW)).make("contoso")
    await desk.write(2)
    with pytest.raises(LivoaError) as raised:
        await desk.checkpointer.make("contoso")
    assert raised.value.code == "checkpoint.signature_invalid"


async def test_an_anchor_is_written_once_and_read_only(desk: Desk) -> None:
    assert await desk.anchors.put("contoso", Anchor(1, "a"))
    assert not await desk.anchors.put("contoso", Anchor(1, "b"))
    path = desk.anchors.path("contoso", 1)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("a", 0o444)
    assert [file.name for file in path.parent.iterdir()] == ["000000000001.jws"]


async def test_anchors_keep_their_order_over_many_folders(desk: Desk) -> None:
    for number in (999, 1_000, 2_001):
        await desk.anchors.put("contoso", Anchor(number, f"n{number}"))
    assert await desk.anchors.latest("contoso") == Anchor(2_001, "n2001")
    assert [a.number for a in await desk.anchors.read("contoso", after=999, limit=9)] == [1_000, 2_001]
    assert [a.number for a in await desk.anchors.read("contoso", after=0, limit=2)] == [999, 1_000]


async def test_the_signing_key_is_for_its_owner_only_and_old_keys_stay_checkable(desk: Desk, tmp_path: Path) -> None:
    key = tmp_path / "keys" / "signing-key.pem"
    await desk.write(2)
    await desk.checkpointer.make("contoso")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.unlink()
    desk.signer = FileSigner(key, create=True)
    desk.checkpointer = Checkpointer(desk.audit, desk.anchors, desk.signer, FixedClock(NOW))
    await desk.write(2)
    await desk.checkpointer.make("contoso")
    assert len(public_keys(public_file(key).read_bytes())) == 2
    assert await desk.findings() == []


async def test_a_missing_key_is_an_error_where_none_may_be_made(tmp_path: Path) -> None:
    with pytest.raises(LivoaError) as raised:
        await FileSigner(tmp_path / "none.pem", create=False).key_id()
    assert raised.value.code == "audit.key_invalid"
