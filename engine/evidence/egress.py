"""Refusals of the egress guard in the chain of the run whose call met them: codes, names of ours and a hash, no address."""

from __future__ import annotations

import hashlib
import logging

from engine.domain.audit import ENGINE_ACTOR, AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.ports.audit_log import AuditLog
from engine.ports.clock import Clock
from engine.ports.egress import EgressRefusal

_LOG = logging.getLogger("livoa.audit")


class AuditedEgress:
    """Implements ``EgressLog`` over the audit log: one record per attempt and code, however often it was met."""

    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit, self._clock = audit, clock

    async def refused(self, refusal: EgressRefusal) -> None:
        """See ``EgressLog.refused``. When the record cannot be written the log has the code; the step's result has it too."""
        key = hashlib.sha256(refusal.key.encode()).hexdigest()[:24]
        body: JsonObject = {
            "step": refusal.step_id,
            "attempt": refusal.attempt,
            "capability": refusal.capability,
            "endpoint": refusal.endpoint,
            "host_sha256": refusal.host_sha256,
            "code": refusal.code,
        }
        entry = AuditEntry(
            tenant_id=refusal.tenant_id,
            entry_id=f"{refusal.run_id}/{key}/{refusal.attempt}/{AuditType.EGRESS_REFUSED.value}/{refusal.code}",
            type=AuditType.EGRESS_REFUSED,
            at=self._clock.now(),
            run_id=refusal.run_id,
            actor=ENGINE_ACTOR,
            body=body if refusal.item is None else body | {"item": refusal.item},
        )
        try:
            await self._audit.append(entry)
        except Exception:
            facts = {"run_id": refusal.run_id, "step_id": refusal.step_id, "code": refusal.code}
            _LOG.warning("a refusal of the egress guard cannot be audited", exc_info=True, extra=facts)
