"""What was announced and never told how it ended: effects whose result nobody lived to record.

A call that is delivered again writes the result of the first one. But an attempt may be given up, and a run may end while a call
is open. When the run is finished, each intent without a result gets a record that says so, and a chain never leaves open whether
somebody looked. Who still returns after that adds the result; the two together are the truth.
"""

from __future__ import annotations

from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.domain.run import Run
from engine.evidence.on_record import put_on_record
from engine.ports.deps import Deps

_ENDED_BY = {
    AuditType.DISPATCH_INTENDED: AuditType.DISPATCH_RESULT,
    AuditType.PLANNER_PROMPT: AuditType.PLANNER_COMPLETION,
}
_ENDS = frozenset(_ENDED_BY.values())
_TOLD = ("step", "item", "attempt", "purpose", "work", "node", "request", "capability", "idempotency_key")
_PAGE = 1_000


async def record_unknown_results(run: Run, deps: Deps) -> int:
    """Append ``result.unknown`` for every intent of the run without a result; how many there are. Repeatable."""
    open_intents: dict[str, AuditRecord] = {}
    after = 0
    while records := await deps.audit.read(run.tenant_id, after_seq=after, limit=_PAGE, run_id=run.run_id):
        for record in records:
            _account_for(record, open_intents)
        after = records[-1].seq
        if len(records) < _PAGE:
            break
    for key, intent in open_intents.items():
        await put_on_record(_entry(run, key, intent, deps), deps.audit)
    return len(open_intents)


def _account_for(record: AuditRecord, open_intents: dict[str, AuditRecord]) -> None:
    if record.type in _ENDED_BY:
        open_intents[_key(record)] = record
    elif record.type in _ENDS:
        open_intents.pop(_key(record), None)


def _key(record: AuditRecord) -> str:
    """What intent and result of one attempt have in common: their ids up to the type; a result's code may follow it."""
    return record.entry_id.partition(f"/{record.type.value}")[0]


def _entry(run: Run, key: str, intent: AuditRecord, deps: Deps) -> AuditEntry:
    return AuditEntry(
        tenant_id=run.tenant_id,
        entry_id=f"{key}/{AuditType.RESULT_UNKNOWN.value}",
        type=AuditType.RESULT_UNKNOWN,
        at=deps.clock.now(),
        run_id=run.run_id,
        actor=run.principal.subject,
        body={"intent_seq": intent.seq} | {name: intent.body[name] for name in _TOLD if name in intent.body},
    )
