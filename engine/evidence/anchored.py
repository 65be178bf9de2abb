"""Checks a copy of a chain against the signed checkpoints somebody else keeps. Needs nothing but the two and the public keys.

What a chain alone cannot show is shown here: a tail cut off below an anchor, and a chain that was rewritten as a whole. Records
behind the last anchor are held by the chain alone, and ``Report.anchored`` says where that begins. Who can rewrite the chain and
remove the anchors too can have it signed anew, but not at an earlier time: ``Report.waited_s`` shows that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.domain.audit import AuditRecord, AuditType
from engine.domain.checkpoint import NO_CHECKPOINT, Anchor, Checkpoint
from engine.domain.errors import LivoaError, Violation
from engine.evidence.chain import Head
from engine.evidence.chain import verify as verify_chain
from engine.evidence.merkle import MerkleTree
from engine.evidence.signed import PublicKeys, holds, take_apart


@dataclass(slots=True)
class Report:
    """``findings`` (none: sound), the last record that a signed checkpoint holds, how many checkpoints held, and the longest that
    a record waited for the first checkpoint that holds it, by the time of either."""

    findings: list[Violation] = field(default_factory=list)
    anchored: int = 0
    checkpoints: int = 0
    waited_s: float = 0.0

    def find(self, code: str, pointer: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Violation(code=code, pointer=pointer, message=message))


def verify(
    records: Sequence[AuditRecord],
    tenant_id: str,
    anchors: Iterable[Anchor],
    keys: PublicKeys,
    *,
    expected_head: Head | None = None,
    within_s: float | None = None,
) -> Report:
    """Check a tenant's whole chain and its anchors, in order of their numbers. Pointers of anchors are ``/anchors/{number}``.

    With ``expected_head`` a copy may end before the last anchor, but not before that head. Codes, beside those of
    ``engine.evidence.chain.verify``: ``anchor.none``, ``anchor.unreadable``, ``anchor.signer_unknown``,
    ``anchor.signature_invalid``, ``anchor.foreign_tenant``, ``anchor.misplaced`` (it carries another number), ``anchor.missing``
    (one was removed), ``anchor.link_broken`` (does not continue the one before it), ``anchor.shrinks``,
    ``anchor.note_mismatch`` (the chain tells of another anchor), ``chain.cut`` (the copy ends before an anchored record),
    ``chain.rewritten`` (other records than those that were anchored) and, with ``within_s``, ``anchor.late`` (a record waited
    longer than that for its checkpoint: nobody could make one, or the chain was rewritten and signed anew).
    """
    report = Report(verify_chain(records, tenant_id, expected_head=expected_head))
    checked = _checkpoints(tenant_id, anchors, keys, report)
    _compare(records, checked, expected_head, report)
    _compare_times(records, checked, within_s, report)
    _compare_notes(records, dict(checked), report)
    return report


def _checkpoints(
    tenant_id: str, anchors: Iterable[Anchor], keys: PublicKeys, report: Report
) -> list[tuple[Anchor, Checkpoint]]:
    """Those that were signed for this chain, and what is wrong with the others and between them."""
    good: list[tuple[Anchor, Checkpoint]] = []
    before: Anchor | None = None
    size = expected = 0
    for anchor in anchors:
        expected += 1
        if anchor.number > expected:
            report.find("anchor.missing", f"/anchors/{expected}", _missing(expected, anchor.number - 1))
        checkpoint = _opened(anchor, tenant_id, keys, report)
        if checkpoint is not None:
            _check_link(anchor, checkpoint, before, size, report)
            good.append((anchor, checkpoint))
            size = checkpoint.size
        before, expected = anchor, anchor.number
    if not expected:
        report.find("anchor.none", "", f"there is no checkpoint of {tenant_id}")
    return good


def _opened(anchor: Anchor, tenant_id: str, keys: PublicKeys, report: Report) -> Checkpoint | None:
    place = f"/anchors/{anchor.number}"
    try:
        signed = take_apart(anchor.jws)
    except LivoaError:
        report.find("anchor.unreadable", place, f"checkpoint {anchor.number} is not a signed checkpoint")
        return None
    key, checkpoint = keys.get(signed.key_id), signed.checkpoint
    if key is None:
        report.find("anchor.signer_unknown", place, f"checkpoint {anchor.number} was signed with another key")
    elif not holds(signed, key):
        report.find("anchor.signature_invalid", place, f"checkpoint {anchor.number} is not what was signed")
    elif checkpoint.tenant_id != tenant_id:
        report.find("anchor.foreign_tenant", place, f"checkpoint {anchor.number} is of {checkpoint.tenant_id}")
    elif checkpoint.number != anchor.number:
        report.find("anchor.misplaced", place, f"checkpoint {checkpoint.number} stands where {anchor.number} belongs")
    else:
        return checkpoint
    return None


def _check_link(anchor: Anchor, checkpoint: Checkpoint, before: Anchor | None, size: int, report: Report) -> None:
    place = f"/anchors/{anchor.number}"
    follows = before is not None and before.number == anchor.number - 1
    expected = before.sha256 if before is not None and follows else NO_CHECKPOINT
    if (follows or anchor.number == 1) and checkpoint.prev != expected:
        report.find("anchor.link_broken", place, f"checkpoint {anchor.number} does not continue the one before it")
    if checkpoint.size <= size:
        report.find("anchor.shrinks", place, f"checkpoint {anchor.number} covers no more than the one before it")


def _compare(
    records: Sequence[AuditRecord],
    checked: list[tuple[Anchor, Checkpoint]],
    expected_head: Head | None,
    report: Report,
) -> None:
    """Grow the tree over the copy and hold its root against each checkpoint, up to the first that differs."""
    tree = MerkleTree()
    for anchor, checkpoint in checked:
        place = f"/anchors/{anchor.number}"
        if checkpoint.size > len(records):
            if expected_head is None or checkpoint.size <= expected_head.seq:
                words = f"the copy ends with record {len(records)}, but checkpoint {anchor.number} anchored {checkpoint.size}"
                report.find("chain.cut", place, words)
                return
            continue
        for record in records[tree.size : checkpoint.size]:
            tree.add(bytes.fromhex(record.hash))
        if tree.root().hex() != checkpoint.root or records[checkpoint.size - 1].hash != checkpoint.head:
            words = f"records {report.anchored + 1} to {checkpoint.size} are not those that checkpoint {anchor.number} anchored"
            report.find("chain.rewritten", place, words)
            return
        report.anchored, report.checkpoints = checkpoint.size, report.checkpoints + 1


def _compare_times(
    records: Sequence[AuditRecord], checked: list[tuple[Anchor, Checkpoint]], within_s: float | None, report: Report
) -> None:
    """How long records had waited for the first checkpoint that holds them. Notes of checkpoints wait for nobody."""
    before = 0
    for anchor, checkpoint in checked[: report.checkpoints]:
        facts = (record for record in records[before : checkpoint.size] if record.type is not AuditType.CHECKPOINT)
        first = min(facts, key=lambda record: record.at, default=None)
        before = checkpoint.size
        if first is None:
            continue
        waited_s = (checkpoint.at - first.at).total_seconds()
        report.waited_s = max(report.waited_s, waited_s)
        if within_s is not None and waited_s > within_s:
            words = f"record {first.seq} had waited {waited_s:.0f} s for checkpoint {anchor.number}, the first that holds it"
            report.find("anchor.late", f"/anchors/{anchor.number}", words)


def _compare_notes(records: Sequence[AuditRecord], checked: dict[Anchor, Checkpoint], report: Report) -> None:
    """Every checkpoint that the chain tells of must be there, as the chain tells of it."""
    kept = {anchor.number: anchor.sha256 for anchor in checked}
    told = {f.pointer for f in report.findings}
    for record in records:
        number = record.body.get("number") if record.type is AuditType.CHECKPOINT else None
        place = f"/anchors/{number}"
        if not isinstance(number, int) or place in told:
            continue
        if number not in kept:
            words = f"checkpoint {number}, of which record {record.seq} tells, is missing"
            report.find("anchor.missing", place, words)
        elif kept[number] != record.body.get("anchor_sha256"):
            words = f"checkpoint {number} is not the one of which record {record.seq} tells"
            report.find("anchor.note_mismatch", place, words)


def _missing(first: int, last: int) -> str:
    return f"checkpoint {first} is missing" if first == last else f"checkpoints {first} to {last} are missing"
