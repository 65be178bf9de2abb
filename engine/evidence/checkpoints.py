"""Makes checkpoints: reads what was recorded since the last one, checks it, signs the grown tree, anchors it, and notes it.

The anchor comes first and the note, an audit record ``checkpoint``, after it; whoever comes next makes up for a note that a crash
kept from being written. Anchors are write-once, so of two that make the same checkpoint one wins, and the other finds its work
done. What no longer follows from the last checkpoint is never signed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from engine.domain.audit import ENGINE_ACTOR, AuditEntry, AuditRecord, AuditType
from engine.domain.checkpoint import NO_CHECKPOINT, Anchor, Checkpoint
from engine.domain.errors import LivoaError
from engine.evidence.chain import Head, verify
from engine.evidence.merkle import MerkleTree
from engine.evidence.signed import assemble, holds, public_keys, signing_input, take_apart
from engine.ports.audit_log import AuditLog
from engine.ports.checkpoints import Anchors, Signer, with_current_key
from engine.ports.clock import Clock

MAX_TRIES = 10
PAGE = 1_000
MAX_RECORDS = 50_000
"""Most records that one checkpoint adds; a longer backlog takes several."""


@dataclass(slots=True)
class _Backlog:
    """The chain behind a checkpoint: the tree over everything, and what the new records tell."""

    tree: MerkleTree
    head: Head
    worth_it: bool = False
    noted: set[int] = field(default_factory=set)


class Checkpointer:
    """Implements ``Checkpoints``. Keeps nothing between calls, so any number of processes may have one."""

    def __init__(self, audit: AuditLog, anchors: Anchors, signer: Signer, clock: Clock) -> None:
        self._audit, self._anchors, self._signer, self._clock = audit, anchors, signer, clock

    async def make(self, tenant_id: str) -> Checkpoint | None:
        """See ``Checkpoints.make``."""
        wanted: int | None = None
        for _ in range(MAX_TRIES):
            anchor = await self._anchors.latest(tenant_id)
            before = await self._opened(tenant_id, anchor) if anchor is not None else None
            if before is not None and wanted is not None and before.size >= wanted:
                return before  # made by another meanwhile, over everything that was there when this was asked for
            backlog = await self._backlog(tenant_id, before)
            wanted = wanted or backlog.tree.size
            if await self._outrun(tenant_id, before, backlog):
                continue
            if anchor is not None and before is not None and before.number not in backlog.noted:
                await self._audit.append(_note(before, anchor))  # whoever anchored it did not live to note it
            if not backlog.worth_it and not await self._rekeyed(anchor, before, backlog):
                return before
            checkpoint = self._next(tenant_id, anchor, before, backlog)
            made = await self._sign(checkpoint)
            if await self._anchors.put(tenant_id, made):
                await self._audit.append(_note(checkpoint, made))
                return checkpoint
        raise LivoaError("checkpoint.contended", "others keep making checkpoints of this chain", status=503)

    async def read(self, tenant_id: str, *, after: int, limit: int) -> tuple[Anchor, ...]:
        """See ``Checkpoints.read``."""
        return await self._anchors.read(tenant_id, after=after, limit=limit)

    async def _opened(self, tenant_id: str, anchor: Anchor) -> Checkpoint:
        """The checkpoint in an anchor, once it is certain that it was signed here and is about this chain."""
        signed = take_apart(anchor.jws)
        key = public_keys(await self._signer.public_pem()).get(signed.key_id)
        if key is None or not holds(signed, key):
            raise LivoaError(
                "checkpoint.signature_invalid", "the last anchor was not signed by a known key", status=500
            )
        if (signed.checkpoint.tenant_id, signed.checkpoint.number) != (tenant_id, anchor.number):
            raise LivoaError("checkpoint.anchor_misplaced", "the last anchor belongs somewhere else", status=500)
        return signed.checkpoint

    async def _backlog(self, tenant_id: str, before: Checkpoint | None) -> _Backlog:
        backlog = _Backlog(MerkleTree(), Head())
        if before is not None:
            tree = MerkleTree(before.size, [bytes.fromhex(peak) for peak in before.peaks])
            backlog = _Backlog(tree, Head(before.size, before.head))
            anchored = await self._audit.read(tenant_id, after_seq=before.size - 1, limit=1)
            if not anchored or Head(anchored[0].seq, anchored[0].hash) != backlog.head:
                raise _broken(f"record {before.size} is not what checkpoint {before.number} anchored")
        async for records in self._pages(tenant_id, backlog.head.seq):
            if findings := verify(records, tenant_id, after=backlog.head):
                raise _broken(f"{findings[0].code}: {findings[0].message}")
            for record in records:
                backlog.tree.add(bytes.fromhex(record.hash))
                if record.type is AuditType.CHECKPOINT:
                    backlog.noted.add(int(record.body["number"]))
                else:
                    backlog.worth_it = True
            backlog.head = Head(records[-1].seq, records[-1].hash)
        return backlog

    async def _pages(self, tenant_id: str, after: int) -> AsyncIterator[tuple[AuditRecord, ...]]:
        for _ in range(MAX_RECORDS // PAGE):
            records = await self._audit.read(tenant_id, after_seq=after, limit=PAGE)
            if records:
                yield records
                after = records[-1].seq
            if len(records) < PAGE:
                return

    async def _outrun(self, tenant_id: str, before: Checkpoint | None, backlog: _Backlog) -> bool:
        """True when somebody else made a checkpoint while we read. Raises when the anchor of one that is noted is gone."""
        known, told = before.number if before is not None else 0, max(backlog.noted, default=0)
        if told <= known:
            return False
        latest = await self._anchors.latest(tenant_id)
        if latest is None or latest.number < told:
            raise LivoaError(
                "checkpoint.anchor_missing", f"the chain tells of checkpoint {told}, but its anchor is gone", status=500
            )
        return True

    def _next(self, tenant_id: str, anchor: Anchor | None, before: Checkpoint | None, backlog: _Backlog) -> Checkpoint:
        return Checkpoint(
            tenant_id=tenant_id,
            number=before.number + 1 if before is not None else 1,
            size=backlog.tree.size,
            head=backlog.head.hash,
            root=backlog.tree.root().hex(),
            peaks=tuple(peak.hex() for peak in backlog.tree.peaks),
            at=self._clock.now(),
            prev=anchor.sha256 if anchor is not None else NO_CHECKPOINT,
        )

    async def _sign(self, checkpoint: Checkpoint) -> Anchor:
        async def signed_by(key_id: str) -> str:
            signed = signing_input(checkpoint, key_id)
            return assemble(signed, await self._signer.sign(signed, key_id))

        return Anchor(checkpoint.number, await with_current_key(self._signer, signed_by))

    async def _rekeyed(self, anchor: Anchor | None, before: Checkpoint | None, backlog: _Backlog) -> bool:
        """True when the last checkpoint was signed with another key than signs now, so that one with this key is due: then the
        other key is needed by nobody but who checks the past."""
        if anchor is None or before is None or backlog.tree.size <= before.size:
            return False
        return take_apart(anchor.jws).key_id != await self._signer.key_id()


def _broken(words: str) -> LivoaError:
    return LivoaError("checkpoint.chain_broken", f"the chain is not continued by what is stored: {words}", status=500)


def _note(checkpoint: Checkpoint, anchor: Anchor) -> AuditEntry:
    """The same for every writer, so whoever needs it to be there may append it."""
    return AuditEntry(
        tenant_id=checkpoint.tenant_id,
        entry_id=f"{AuditType.CHECKPOINT.value}/{checkpoint.number}",
        type=AuditType.CHECKPOINT,
        at=checkpoint.at,
        actor=ENGINE_ACTOR,
        body={
            "number": checkpoint.number,
            "size": checkpoint.size,
            "root": checkpoint.root,
            "anchor_sha256": anchor.sha256,
            "key_id": take_apart(anchor.jws).key_id,
        },
    )
