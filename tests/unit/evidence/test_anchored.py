"""A copy of a chain, held against signed checkpoints: whatever was done to either is named, and an honest copy never is."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.adapters.files.anchors import FilesAnchors
from engine.adapters.files.signing_key import FileSigner
from engine.adapters.memory import FixedClock, MemoryAuditLog
from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.domain.checkpoint import Anchor
from engine.domain.errors import LivoaError
from engine.evidence.anchored import Report, verify
from engine.evidence.chain import Head, chain
from engine.evidence.checkpoints import Checkpointer
from engine.evidence.signed import PublicKeys, assemble, public_keys, signing_input, take_apart

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)


@dataclass
class Copy:
    """What an auditor holds."""

    records: list[AuditRecord]
    anchors: list[Anchor]
    keys: PublicKeys
    signer: FileSigner

    def check(self, tenant: str = "contoso", head: Head | None = None) -> Report:
        return verify(self.records, tenant, self.anchors, self.keys, expected_head=head)

    def codes(self) -> set[str]:
        return {finding.code for finding in self.check().findings}


async def copied(folder: Path, tenant: str = "contoso", actor: str = "tid:ana") -> Copy:
    """Three checkpoints over 5, 11 and 17 records, notes included; the copy ends with the last anchored one."""
    audit, anchors = MemoryAuditLog(), FilesAnchors(folder / "anchors")
    signer = FileSigner(folder / "key.pem", create=True)
    checkpointer = Checkpointer(audit, anchors, signer, FixedClock(NOW))
    for part in range(3):
        for number in range(5):
            await audit.append(
                AuditEntry(
                    tenant_id=tenant, entry_id=f"e{part}-{number}", type=AuditType.SYNTHESIS, at=NOW, actor=actor
                )
            )
        made = await checkpointer.make(tenant)
    assert made is not None
    records = await audit.read(tenant, after_seq=0, limit=made.size)
    kept = await anchors.read(tenant, after=0, limit=9)
    return Copy(list(records), list(kept), public_keys(await signer.public_pem()), signer)


@pytest.fixture
async def copy(tmp_path: Path) -> Copy:
    return await copied(tmp_path)


async def test_an_honest_copy_is_sound_and_wholly_anchored(copy: Copy) -> None:
    report = copy.check()
    assert (report.findings, report.anchored, report.checkpoints) == ([], 17, 3)


def rebuilt(records: list[AuditRecord]) -> list[AuditRecord]:
    """The chain with one word changed and every hash made good again."""
    made: list[AuditRecord] = []
    for record in records:
        entry = AuditEntry(
            tenant_id=record.tenant_id, entry_id=record.entry_id, type=record.type, at=record.at, run_id=record.run_id,
            actor="tid:eve" if record.seq == 7 else record.actor, body=record.body,
        )  # fmt: skip
        made.append(chain(made[-1] if made else None, entry))
    return made


def _edit(c: Copy) -> None:
    c.records[6] = c.records[6].model_copy(update={"actor": "tid:eve"})


def _swap(c: Copy) -> None:
    c.records[3], c.records[4] = c.records[4], c.records[3]


def _rebuild(c: Copy) -> None:
    c.records = rebuilt(c.records)


def _reorder(c: Copy) -> None:
    c.anchors[0], c.anchors[1] = replace(c.anchors[1], number=1), replace(c.anchors[0], number=2)


def _flip(c: Copy) -> None:
    head, payload, signature = c.anchors[1].jws.split(".")
    c.anchors[1] = Anchor(2, ".".join((head, payload, ("B" if signature[0] == "A" else "A") + signature[1:])))


ATTACKS: dict[str, tuple[Callable[[Copy], None], str]] = {
    "edit": (_edit, "chain.hash_mismatch"),
    "delete": (lambda c: c.records.pop(4) and None, "chain.gap"),
    "insert": (lambda c: c.records.insert(4, c.records[9]), "chain.gap"),
    "repeat": (lambda c: c.records.insert(4, c.records[3]), "chain.order"),
    "swap": (_swap, "chain.gap"),
    "cut": (lambda c: c.records.pop() and None, "chain.cut"),
    "cut-long": (lambda c: c.records.__delitem__(slice(3, None)), "chain.cut"),
    "emptied": (lambda c: c.records.clear(), "chain.cut"),
    "rebuild": (_rebuild, "chain.rewritten"),
    "first-anchor-gone": (lambda c: c.anchors.pop(0) and None, "anchor.missing"),
    "middle-anchor-gone": (lambda c: c.anchors.pop(1) and None, "anchor.missing"),
    "noted-anchors-gone": (lambda c: c.anchors.__delitem__(slice(1, None)), "anchor.missing"),
    "no-anchor": (lambda c: c.anchors.clear(), "anchor.none"),
    "no-anchor-file": (lambda c: c.anchors.__setitem__(1, Anchor(2, "{}")), "anchor.unreadable"),
    "signature": (_flip, "anchor.signature_invalid"),
    "anchors-reordered": (_reorder, "anchor.misplaced"),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_every_attack_is_found_and_named(copy: Copy, name: str) -> None:
    attack, code = ATTACKS[name]
    attack(copy)
    assert code in copy.codes()


async def test_an_edit_is_reported_with_the_number_of_the_record(copy: Copy) -> None:
    _edit(copy)
    assert [(f.pointer, f.message) for f in copy.check().findings] == [
        ("/6/hash", "the content of record 7 is not what was hashed")
    ]


async def test_a_rebuilt_chain_is_confined_to_what_one_checkpoint_added(copy: Copy) -> None:
    _rebuild(copy)
    assert [(f.pointer, f.message) for f in copy.check().findings] == [
        ("/anchors/2", "records 6 to 11 are not those that checkpoint 2 anchored")
    ]


async def test_another_tenants_chain_and_anchors_are_foreign(copy: Copy, tmp_path: Path) -> None:
    other = await copied(tmp_path / "other", "fabrikam")
    assert "chain.foreign_tenant" in {f.code for f in replace(copy, records=other.records).check().findings}
    mixed = replace(copy, anchors=other.anchors, keys=other.keys)
    assert "anchor.foreign_tenant" in mixed.codes()


async def test_a_chain_rebuilt_with_checkpoints_of_its_own_is_of_the_wrong_signer(copy: Copy, tmp_path: Path) -> None:
    eve = await copied(tmp_path / "eve", actor="tid:eve")
    assert replace(copy, records=eve.records, anchors=eve.anchors).codes() >= {"anchor.signer_unknown"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prev": "a" * 64}, "anchor.link_broken"),
        ({"root": "a" * 64}, "chain.rewritten"),
        ({"head": "a" * 64}, "chain.rewritten"),
        ({"size": 11}, "anchor.shrinks"),
    ],
)
async def test_a_false_statement_is_found_even_if_it_is_signed(
    copy: Copy, change: dict[str, object], code: str
) -> None:
    checkpoint = take_apart(copy.anchors[2].jws).checkpoint.model_copy(update=change)
    signed = signing_input(checkpoint, await copy.signer.key_id())
    copy.anchors[2] = Anchor(3, assemble(signed, await copy.signer.sign(signed, await copy.signer.key_id())))
    assert code in copy.codes()


async def test_an_older_copy_is_sound_up_to_a_head_that_was_noted(copy: Copy) -> None:
    head = Head(11, copy.records[10].hash)
    copy.records = copy.records[:11]
    assert copy.codes() == {"chain.cut"}
    assert copy.check(head=head).findings == []
    copy.records = copy.records[:10]
    assert {f.code for f in copy.check(head=head).findings} == {"chain.cut", "chain.head_missing"}


async def test_records_behind_the_last_anchor_are_said_to_be_held_by_the_chain_alone(copy: Copy) -> None:
    entry = AuditEntry(tenant_id="contoso", entry_id="late", type=AuditType.SYNTHESIS, at=NOW, actor="tid:ana")
    copy.records.append(chain(copy.records[-1], entry))
    assert (copy.check().findings, copy.check().anchored, len(copy.records)) == ([], 17, 18)


@pytest.mark.parametrize("text", ["", "a.b.c", "é", "a" * 20_000, "eyJhbGciOiJub25lIn0.e30."])
async def test_what_is_no_signed_checkpoint_is_unreadable_and_nothing_else(copy: Copy, text: str) -> None:
    copy.anchors[0] = Anchor(1, text)
    assert "anchor.unreadable" in copy.codes()


async def test_a_chain_that_was_rewritten_and_signed_anew_shows_in_the_times_alone(tmp_path: Path) -> None:
    """Who can write the database and remove anchors, and has no key: the host signs what is sound."""
    copy, later = await copied(tmp_path), NOW + timedelta(days=1)
    audit, anchors = MemoryAuditLog(), FilesAnchors(tmp_path / "emptied")
    for record in rebuilt(copy.records):
        if record.type is not AuditType.CHECKPOINT:
            await audit.append(AuditEntry(**{name: getattr(record, name) for name in AuditEntry.model_fields}))
    made = await Checkpointer(audit, anchors, copy.signer, FixedClock(later)).make("contoso")
    assert made is not None
    forged = await audit.read("contoso", after_seq=0, limit=made.size)
    kept = await anchors.read("contoso", after=0, limit=9)
    report = verify(forged, "contoso", kept, copy.keys)
    assert (report.findings, report.waited_s) == ([], 86_400.0)
    late = verify(forged, "contoso", kept, copy.keys, within_s=3_600)
    assert [(f.code, f.pointer) for f in late.findings] == [("anchor.late", "/anchors/1")]


async def test_an_honest_copy_has_waited_for_no_checkpoint(copy: Copy) -> None:
    report = verify(copy.records, "contoso", copy.anchors, copy.keys, within_s=60)
    assert (report.findings, report.waited_s) == ([], 0)


async def test_a_note_whose_number_is_none_is_no_crash(copy: Copy) -> None:
    note = next(record for record in copy.records if record.type is AuditType.CHECKPOINT)
    copy.records[note.seq - 1] = note.model_copy(update={"body": {"number": [1]}})
    assert "chain.hash_mismatch" in copy.codes()


async def test_a_copy_of_an_old_anchor_elsewhere_is_not_the_latest(tmp_path: Path) -> None:
    copy = await copied(tmp_path)
    anchors = FilesAnchors(tmp_path / "anchors")
    decoy = tmp_path / "anchors" / "contoso" / "000000999" / "000000000001.jws"
    decoy.parent.mkdir()
    decoy.write_text(copy.anchors[0].jws)
    latest = await anchors.latest("contoso")
    assert latest is not None
    assert latest.number == 3


async def test_a_checkpoint_that_was_signed_twice_is_not_the_one_that_the_chain_tells_of(copy: Copy) -> None:
    signed = take_apart(copy.anchors[1].jws)
    again = assemble(signed.signing_input, await copy.signer.sign(signed.signing_input, await copy.signer.key_id()))
    assert again != copy.anchors[1].jws
    copy.anchors[1] = Anchor(2, again)
    assert copy.codes() == {"anchor.note_mismatch", "anchor.link_broken"}


async def test_a_checkpoint_has_one_spelling(copy: Copy) -> None:
    head, payload, signature = copy.anchors[0].jws.split(".")
    spaced = base64.urlsafe_b64encode(base64.urlsafe_b64decode(payload + "==").replace(b",", b", ", 1)).rstrip(b"=")
    with pytest.raises(LivoaError) as caught:
        take_apart(".".join((head, spaced.decode(), signature)))
    assert caught.value.code == "anchor.unreadable"
