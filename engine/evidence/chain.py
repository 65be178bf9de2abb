"""The hash chain of audit records: how an entry becomes a record, and how a chain is checked by anybody who holds a copy.

Each record's hash covers every other field of it, the hash of the record before included; so an edit, a removal, an insertion or
a swap anywhere but at the end breaks a link. What stands at the end is held by a *head* noted elsewhere: without one, a tail
that was cut off and a chain that was rewritten as a whole look sound. Signed checkpoints are such heads; they are not made here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.domain.audit import AUDIT_FORMAT_VERSION, GENESIS_HASH, AuditEntry, AuditRecord
from engine.domain.base import iso_utc
from engine.domain.errors import LivoaError, Violation
from engine.domain.strict_json import escape_token
from engine.evidence.canonical import canonical_bytes

LEAF_PREFIX = b"\x00"
"""Domain separation of a record from an inner node of a Merkle tree (RFC 6962 section 2.1)."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain stood: sequence number and hash of its last record. ``Head(0, GENESIS_HASH)`` is the empty chain."""

    seq: int = 0
    hash: str = GENESIS_HASH


def chain(previous: AuditRecord | Head | None, entry: AuditEntry) -> AuditRecord:
    """The record that ``entry`` becomes after ``previous`` (None: the first of its tenant).

    Raises ``LivoaError("audit.body_invalid")`` when the body holds a float, and ``canonical.*`` when it is no JSON that can be
    hashed: an entry that cannot be proven later is not recorded at all. Raises ``ValueError`` for another tenant's record.
    """
    if isinstance(previous, AuditRecord) and previous.tenant_id != entry.tenant_id:
        raise ValueError("a chain holds the records of one tenant")
    before = previous or Head()
    _refuse_floats(entry.body, "/body")
    fields: dict[str, Any] = {
        "v": AUDIT_FORMAT_VERSION,
        "tenant_id": entry.tenant_id,
        "seq": before.seq + 1,
        "entry_id": entry.entry_id,
        "type": entry.type.value,
        "at": iso_utc(entry.at),
        "run_id": entry.run_id,
        "actor": entry.actor,
        "body": entry.body,
        "prev": before.hash,
    }
    return AuditRecord(**(fields | {"hash": _hash(fields)}))


def record_hash(record: AuditRecord) -> str:
    """SHA-256 over 0x00 and the RFC 8785 form of every field but ``hash``; ``at`` in RFC 3339 with microseconds and ``Z``."""
    fields = record.model_dump(mode="python", exclude={"hash"})
    return _hash(fields | {"at": iso_utc(record.at), "type": record.type.value})


def verify(
    records: Iterable[AuditRecord], tenant_id: str, *, after: Head | None = None, expected_head: Head | None = None
) -> list[Violation]:
    """Check a tenant's chain, or the part of it that follows ``after``. An empty list means sound.

    ``expected_head`` is a head noted elsewhere; the records must contain it. Codes: ``chain.version``, ``chain.foreign_tenant``,
    ``chain.hash_mismatch`` (edited), ``chain.genesis`` (does not start where it must), ``chain.gap`` (removed),
    ``chain.order`` (inserted, repeated or swapped), ``chain.link_broken``, ``chain.entry_repeated``, ``chain.head_missing``
    (the tail is cut off or the chain was rewritten). Pointers are ``/{index}/{field}`` into ``records``.

    Checking goes on after a finding from what the record itself says, so one edit is reported where it is.
    """
    state = _Walk(tenant_id, after or Head(), expected_head)
    for index, record in enumerate(records):
        state.check(index, record)
    if expected_head is not None and not state.head_seen:
        state.find("chain.head_missing", "", f"the record {expected_head.seq} with the noted hash is not in the chain")
    return state.findings


@dataclass(slots=True)
class _Walk:
    tenant_id: str
    before: Head
    expected_head: Head | None
    findings: list[Violation] = field(default_factory=list)
    entry_ids: set[str] = field(default_factory=set)
    head_seen: bool = False
    first: bool = True

    def __post_init__(self) -> None:
        self.head_seen = self.expected_head == self.before

    def find(self, code: str, pointer: str, message: str) -> None:
        self.findings.append(Violation(code=code, pointer=pointer, message=message))

    def check(self, index: int, record: AuditRecord) -> None:
        self._check_record(index, record)
        self._check_place(index, record)
        self.entry_ids.add(record.entry_id)
        self.before = Head(record.seq, record.hash)
        self.head_seen = self.head_seen or self.before == self.expected_head
        self.first = False

    def _check_record(self, index: int, record: AuditRecord) -> None:
        if record.v != AUDIT_FORMAT_VERSION:
            self.find("chain.version", f"/{index}/v", f"format {record.v} is unknown to this verifier")
        if record.tenant_id != self.tenant_id:
            self.find("chain.foreign_tenant", f"/{index}/tenant_id", f"the record belongs to {record.tenant_id}")
        if not _hash_holds(record):
            self.find(
                "chain.hash_mismatch", f"/{index}/hash", f"the content of record {record.seq} is not what was hashed"
            )
        if record.entry_id in self.entry_ids:
            self.find("chain.entry_repeated", f"/{index}/entry_id", "an earlier record has the same entry id")

    def _check_place(self, index: int, record: AuditRecord) -> None:
        expected = self.before.seq + 1
        if self.first and (record.seq != expected or record.prev != self.before.hash):
            self.find(
                "chain.genesis", f"/{index}/prev", f"the chain must start with record {expected} after the given head"
            )
        elif record.seq > expected:
            last = record.seq - 1
            words = f"record {last} is missing" if last == expected else f"records {expected} to {last} are missing"
            self.find("chain.gap", f"/{index}/seq", words)
        elif record.seq < expected:
            self.find("chain.order", f"/{index}/seq", f"record {record.seq} stands after record {self.before.seq}")
        elif record.prev != self.before.hash:
            self.find("chain.link_broken", f"/{index}/prev", f"record {record.seq} does not continue the one before it")


def _hash(fields: dict[str, Any]) -> str:
    return hashlib.sha256(LEAF_PREFIX + canonical_bytes(fields)).hexdigest()


def _hash_holds(record: AuditRecord) -> bool:
    try:
        return record_hash(record) == record.hash
    except LivoaError:
        return False  # a body that cannot be hashed was never chained


def _refuse_floats(value: Any, pointer: str) -> None:
    if isinstance(value, float):
        raise LivoaError(
            "audit.body_invalid",
            "facts are integers, texts and booleans; a float has no place in a record",
            pointer=pointer,
        )
    if isinstance(value, dict):
        for key, member in value.items():
            _refuse_floats(member, f"{pointer}/{escape_token(str(key))}")
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            _refuse_floats(member, f"{pointer}/{index}")
