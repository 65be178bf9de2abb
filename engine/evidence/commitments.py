"""An audit log whose records commit to content by keyed hashes, so that nothing can be guessed from them after an erasure.

A plain hash of "yes", of a mail address or of a plan with one unknown word is found by trying. Every such hash in an entry of a
run is replaced by HMAC-SHA-256 of it under a key of that run before it is chained; ``committed_with`` names the key. The same
content has the same commitment within a run, auditors are given the key with the content, and it dies with the content.
"""

from __future__ import annotations

import re

from engine.domain.audit import AuditEntry, AuditRecord
from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError
from engine.ports.audit_log import AuditLog
from engine.ports.commitments import Commitments, Committer

COMMITTED = frozenset({
    "answer_sha256",
    "approved_plan_hash",
    "arguments_sha256",
    "diff_sha256",
    "facts_sha256",
    "inputs_sha256",
    "output_sha256",
    "plan_hash",
    "prompt_sha256",
    "replaced_plan_hash",
    "request_sha256",
    "step_hash",
    "vetting_id",
})  # fmt: skip
"""Fields of bodies that are hashes of content, or of what content is part of."""
COMMITTED_WITH = "committed_with"
ERASED = "erased"
"""In the place of a commitment, and of its key, in what is still recorded about a run whose key is gone."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHORT = 16
"""How much of a hash stands in ids of entries."""


class KeyedAuditLog:
    """Implements ``AuditLog`` over another one. What cannot be committed to cannot be recorded: errors of ``commitments`` go on,
    but for an erased run, whose records then hold ``erased``."""

    def __init__(self, inner: AuditLog, commitments: Commitments) -> None:
        self._inner, self._commitments = inner, commitments

    async def append(self, entry: AuditEntry) -> AuditRecord:
        """See ``AuditLog.append``."""
        return await self._inner.append(await self.as_recorded(entry))

    async def as_recorded(self, entry: AuditEntry) -> AuditEntry:
        """See ``RewritingAuditLog.as_recorded``."""
        if entry.run_id is None or not _hashes(entry.body):
            return entry
        try:
            committer = await self._commitments.get(entry.tenant_id, entry.run_id)
        except LivoaError as err:
            if err.code != "payload.erased":
                raise
            return keyed(entry, None)
        return keyed(entry, committer)

    async def read(
        self, tenant_id: str, *, after_seq: int, limit: int, run_id: str | None = None
    ) -> tuple[AuditRecord, ...]:
        """See ``AuditLog.read``."""
        return await self._inner.read(tenant_id, after_seq=after_seq, limit=limit, run_id=run_id)

    async def find(self, tenant_id: str, entry_id: str) -> AuditRecord | None:
        """See ``AuditLog.find``, by the id as it is recorded: where it held the beginning of a hash it has a commitment's."""
        return await self._inner.find(tenant_id, entry_id)


def keyed(entry: AuditEntry, committer: Committer | None) -> AuditEntry:
    """The entry with commitments in the place of hashes, also where its id holds the beginning of one. None: the key is gone."""
    hashes, entry_id = _hashes(entry.body), entry.entry_id
    commitments = {name: committer.name(value) if committer else ERASED for name, value in hashes.items()}
    for name, value in hashes.items():
        entry_id = entry_id.replace(value[:_SHORT], commitments[name][:_SHORT])
    facts = commitments | {COMMITTED_WITH: committer.key_id if committer else ERASED}
    return entry.model_copy(update={"entry_id": entry_id, "body": entry.body | facts})


def _hashes(body: JsonObject) -> dict[str, str]:
    found = {name: body.get(name) for name in sorted(COMMITTED & body.keys())}
    return {name: value for name, value in found.items() if isinstance(value, str) and _SHA256.fullmatch(value)}
