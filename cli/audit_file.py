"""An exported audit chain as a file: JSON lines, a record each, in the order of the chain. Checking it needs no host.

Signed checkpoints, where an auditor has them, are in a folder as ``engine.adapters.files.anchors`` lays it out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CliError
from cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from engine.domain.audit import AuditRecord
    from engine.domain.checkpoint import Anchor
    from engine.evidence import Head
    from engine.evidence.signed import PublicKeys

MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, in which line of the file (from 1; 0 for the file as a whole) or with which checkpoint (0: with none)."""

    code: str
    line: int
    message: str
    checkpoint: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """``findings`` (none: sound), the head of the chain in the file, whose chain it is, and how much of it checkpoints hold."""

    findings: list[Finding]
    head: Head
    tenant: str | None
    anchored: int = 0
    checkpoints: int = 0
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Witness:
    """The signed checkpoints that a file is held against, the PEM file of the keys that may have signed them, and how many
    seconds a record may have waited for its checkpoint (None: any)."""

    anchors: Path
    public_key: Path
    within_s: float | None = None


def check(path: Path, tenant: str | None, noted: Head | None, witness: Witness | None = None) -> Checked:
    """Check the chain in a file, by itself or against signed checkpoints.

    Without ``tenant`` it is the chain of the first record's. ``noted`` is a head that was written down elsewhere. With neither
    that nor a ``witness`` a tail that was cut off and a chain that was rewritten as a whole look sound.
    """
    from engine.evidence import Head, verify
    from engine.evidence.anchored import Report
    from engine.evidence.anchored import verify as verify_anchored

    keys = _keys(witness.public_key) if witness is not None else {}
    records: list[AuditRecord] = []
    for record in _records(path):
        if isinstance(record, Finding):
            return Checked([record], Head(), tenant)
        records.append(record)
    owner = tenant or (records[0].tenant_id if records else None)
    if owner is None:
        return Checked([Finding("chain.empty", 0, "the file holds no record")], Head(), None)
    if witness is None:
        report = Report(verify(records, owner, expected_head=noted))
    else:
        anchors = read_anchors(witness.anchors, owner)
        report = verify_anchored(records, owner, anchors, keys, expected_head=noted, within_s=witness.within_s)
    findings = [Finding(v.code, _line(v.pointer), v.message, _checkpoint(v.pointer)) for v in report.findings]
    head = Head(records[-1].seq, records[-1].hash) if records else Head()
    return Checked(findings, head, owner, report.anchored, report.checkpoints, report.waited_s)


def read_anchors(folder: Path, tenant: str) -> list[Anchor]:
    """The anchors of a tenant, in order; ``folder`` is that of all tenants, or the tenant's own. Raises CliError (USAGE)."""
    from engine.adapters.files.anchors import FilesAnchors
    from engine.domain.errors import LivoaError

    if not folder.is_dir():
        raise CliError(f"{folder} is no folder", exit_code=ExitCode.USAGE, code="cli.file")
    resolved = folder.resolve()
    own = resolved.name == tenant and not (resolved / tenant).is_dir()
    kept = FilesAnchors(resolved.parent if own else resolved)

    async def everything() -> list[Anchor]:
        found: list[Anchor] = []
        while page := await kept.read(tenant, after=found[-1].number if found else 0, limit=1_000):
            found.extend(page)
        return found

    try:
        return asyncio.run(everything())
    except LivoaError as err:
        raise CliError(err.message, exit_code=ExitCode.USAGE, code=err.code) from err


def write_anchors(folder: Path, tenant: str, anchors: Iterable[Anchor]) -> None:
    """Copy anchors into a folder; those that are there already must be the same. Raises CliError (FAILED)."""
    from engine.adapters.files.anchors import FilesAnchors
    from engine.domain.errors import LivoaError

    kept = FilesAnchors(folder)

    async def put() -> None:
        for anchor in anchors:
            before = anchor.number - 1
            if not await kept.put(tenant, anchor) and await kept.read(tenant, after=before, limit=1) != (anchor,):
                raise CliError(
                    f"{folder} holds another checkpoint {anchor.number} of {tenant} than the host",
                    hint="one of the two was forged, or they are of different hosts: compare them",
                    exit_code=ExitCode.FAILED,
                    code="anchor.differs",
                )

    try:
        asyncio.run(put())
    except LivoaError as err:
        raise CliError(err.message, exit_code=ExitCode.USAGE, code=err.code) from err


def _keys(path: Path) -> PublicKeys:
    from engine.domain.errors import LivoaError
    from engine.evidence.signed import public_keys

    try:
        return public_keys(path.read_bytes())
    except OSError as err:
        raise CliError(f"cannot read {path}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file") from err
    except LivoaError as err:
        raise CliError(f"{path}: {err.message}", exit_code=ExitCode.USAGE, code=err.code) from err


def head_of(text: str) -> Head:
    """The head in ``SEQ:HASH``. Raises CliError (USAGE)."""
    from engine.evidence import Head

    seq, _, digest = text.partition(":")
    if not (seq.isascii() and seq.isdigit() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        raise CliError(
            f"{text!r} is not a head",
            hint="give the number and the hash that an export or a verification printed, like 42:9f86d0…",
            exit_code=ExitCode.USAGE,
            code="cli.head",
        )
    return Head(int(seq), digest)


def _line(pointer: str) -> int:
    first = pointer.split("/")[1] if "/" in pointer else ""
    return int(first) + 1 if first.isdigit() else 0


def _checkpoint(pointer: str) -> int:
    _, _, number = pointer.partition("/anchors/")
    return int(number) if number.isdigit() else 0


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key is repeated")
    return members


def _records(path: Path) -> Iterator[AuditRecord | Finding]:
    from engine.domain.audit import AuditRecord

    try:
        with path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), 1):
                try:
                    record = AuditRecord.model_validate_json(line.removesuffix(b"\n"), strict=True)
                    # One spelling: a repeated key or another form of a time would show one thing here and another to a reader.
                    if record.model_dump(mode="json") != json.loads(line, object_pairs_hook=_members):
                        raise ValueError("another spelling")
                    yield record
                except ValueError:
                    yield Finding("chain.unreadable", number, "this line is not an audit record")
                    return
    except OSError as err:
        raise CliError(f"cannot read {path}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file") from err
