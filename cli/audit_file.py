"""An exported audit chain as a file: JSON lines, a record each, in the order of the chain. Reading and checking need no host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CliError
from cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from engine.domain.audit import AuditRecord
    from engine.evidence import Head

MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and in which line of the file (from 1; 0 for the file as a whole)."""

    code: str
    line: int
    message: str


def check(path: Path, tenant: str | None, noted: Head | None) -> tuple[list[Finding], Head, str | None]:
    """Findings (none: sound), the head of the chain in the file, and whose chain it is.

    Without ``tenant`` that is the tenant of the first record. ``noted`` is a head that was written down elsewhere, without which
    a tail that was cut off and a chain that was rewritten as a whole look sound.
    """
    from engine.evidence import Head, verify

    records: list[AuditRecord] = []
    for number, record in _records(path):
        if isinstance(record, Finding):
            return [record], Head(), tenant
        assert number == len(records) + 1
        records.append(record)
    owner = tenant or (records[0].tenant_id if records else None)
    if owner is None:
        return [Finding("chain.empty", 0, "the file holds no record")], Head(), None
    found = verify(records, owner, expected_head=noted)
    findings = [Finding(v.code, _line(v.pointer), v.message) for v in found]
    head = Head(records[-1].seq, records[-1].hash) if records else Head()
    return findings, head, owner


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


def _records(path: Path) -> Iterator[tuple[int, AuditRecord | Finding]]:
    from engine.domain.audit import AuditRecord

    try:
        with path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), 1):
                try:
                    yield number, AuditRecord.model_validate_json(line[:-1] if line.endswith(b"\n") else line)
                except ValueError:
                    yield number, Finding("chain.unreadable", number, "this line is not an audit record")
                    return
    except OSError as err:
        raise CliError(f"cannot read {path}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file") from err
