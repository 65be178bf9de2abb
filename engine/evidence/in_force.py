"""What is in force, put on record when it changes: policies, and the configuration that decisions are made under.

The operator changes files and asks nobody, so a change is noticed where it takes effect: by the first decision that is made under
it. The records of one kind are numbered without gaps, so every process finds the last one and writes only what differs from it.
Of two processes with the same news one writes; while an old and a new version serve side by side each says once what it loaded.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from datetime import datetime, timedelta

from engine.domain.audit import ENGINE_ACTOR, AuditEntry, AuditRecord, AuditType
from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError
from engine.ports.audit_log import AuditLog
from engine.ports.clock import Clock
from engine.ports.in_force import Kind

VERSION = "version_sha256"
"""Field of a record that says what is in force."""
_TYPES = {"policy": AuditType.POLICY_CHANGED, "config": AuditType.CONFIG_CHANGED}
_MAX_NOTED = 20_000
_MAX_TRIES = 8
"""How often somebody else may be quicker before the next decision is left to try again."""
WARN_EVERY = timedelta(minutes=1)

_LOG = logging.getLogger("livoa.audit")


class InForceRecords:
    """Implements ``InForceLog``: writes ``policy.changed`` and ``config.changed`` (phase ``in_force``).

    One per process, because it remembers what it has noted."""

    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit, self._clock = audit, clock
        self._noted: OrderedDict[tuple[str, Kind], tuple[int, str]] = OrderedDict()
        self._warned_at: datetime | None = None
        self._unsaid = 0

    def is_noted(self, tenant_id: str, kind: Kind, version_sha256: str) -> bool:
        """See ``InForceLog.is_noted``."""
        noted = self._noted.get((tenant_id, kind))
        return noted is not None and noted[1] == version_sha256

    async def note(self, tenant_id: str, kind: Kind, version_sha256: str, facts: JsonObject) -> None:
        """See ``InForceLog.note``.

        It never raises: each decision's own record names the policies it was made under, and an effect needs a record of its own.
        What could not be written is tried again by the next decision.
        """
        if self.is_noted(tenant_id, kind, version_sha256):
            return
        try:
            number = await self._written(tenant_id, kind, version_sha256, facts)
        except Exception as err:
            self._warn(err, tenant_id)
            return
        self._noted[tenant_id, kind] = (number, version_sha256)
        while len(self._noted) > _MAX_NOTED:
            self._noted.popitem(last=False)

    def _warn(self, err: Exception, tenant_id: str) -> None:
        """One line a minute at most: while the audit log is down every decision comes by here."""
        now = self._clock.now()
        # The lower bound: after a clock was set back, "not yet" could last for hours.
        if self._warned_at is not None and timedelta() <= now - self._warned_at < WARN_EVERY:
            self._unsaid += 1
            return
        cause = err.code if isinstance(err, LivoaError) else type(err).__name__
        more = f"; {self._unsaid} more times since this was said last" if self._unsaid else ""
        _LOG.warning(
            "what is in force cannot be audited: %s%s", cause, more, extra={"tenant_id": tenant_id, "code": cause}
        )
        self._warned_at, self._unsaid = now, 0

    async def _written(self, tenant_id: str, kind: Kind, version_sha256: str, facts: JsonObject) -> int:
        number, last = await self._last(tenant_id, kind)
        for _ in range(_MAX_TRIES):
            if last is not None and last.body.get(VERSION) == version_sha256:
                return number
            before = last.body.get(VERSION) if last is not None else None
            body = facts | {"phase": "in_force", VERSION: version_sha256, "from_version_sha256": before}
            number += 1
            # An id that is taken answers with what stands there: somebody else's news, which ours then follows.
            last = await self._audit.append(
                AuditEntry(
                    tenant_id=tenant_id,
                    entry_id=_entry_id(kind, number),
                    type=_TYPES[kind],
                    at=self._clock.now(),
                    actor=ENGINE_ACTOR,
                    body=body,
                )
            )
        if last is not None and last.body.get(VERSION) == version_sha256:
            return number
        raise TimeoutError("what is in force keeps changing")

    async def _last(self, tenant_id: str, kind: Kind) -> tuple[int, AuditRecord | None]:
        """The latest record of its kind and its number, found in logarithmic time: the numbers have no gaps."""
        known = self._noted.get((tenant_id, kind), (0, ""))[0]
        low, found, step = known, None, 1
        if known:
            found = await self._audit.find(tenant_id, _entry_id(kind, known))
        while (record := await self._audit.find(tenant_id, _entry_id(kind, low + step))) is not None:
            low, found, step = low + step, record, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            record = await self._audit.find(tenant_id, _entry_id(kind, middle))
            if record is None:
                high = middle
            else:
                low, found = middle, record
        return low, found


def _entry_id(kind: Kind, number: int) -> str:
    return f"in-force/{kind}/{number}"
