"""Who was turned away at the door: an audit record where the tenant is known, a line in the security log where it is not.

Knocking is free for whoever does it, so both are bounded. Per tenant and five minutes, one reason of one caller at one route is
one record, and there are at most ``MAX_RECORDS`` of them; unknown callers share ``MAX_LINES`` lines a minute of a process. What
goes beyond is counted, and the count is told. Nothing of the token is kept but what its verified claims say about the caller.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime, timedelta

from engine.domain.audit import AuditEntry, AuditType
from engine.ports.audit_log import AuditLog
from engine.ports.clock import Clock
from engine.ports.identity import Rejection, Speaker

WINDOW_S = 300
MAX_RECORDS = 100
MAX_LINES = 30
LINES_WINDOW_S = 60
MAX_TENANTS = 10_000
"""Tenants counted at once; more than that in five minutes share the security log's bound."""

_LOG = logging.getLogger("livoa.security")


class AuditedRejections:
    """Implements ``RejectionLog`` over the audit log of the tenants."""

    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit, self._clock = audit, clock
        self._window = -1
        self._entries: dict[str, set[str]] = {}
        self._lines_since: datetime | None = None
        self._lines = 0
        self._suppressed = 0

    async def record(self, rejection: Rejection) -> None:
        """See ``RejectionLog.record``."""
        now = self._clock.now()
        entry = self._entry(rejection, rejection.speaker, now) if rejection.speaker is not None else None
        if rejection.speaker is not None and entry is None:
            return  # recorded in this window already, or one too many of this tenant
        if entry is not None:
            try:
                await self._audit.append(entry)
                return
            except Exception:
                # The caller is refused whether or not it can be recorded; the line below is what is left.
                _LOG.warning("rejection cannot be audited", extra={"code": rejection.code, "route": rejection.route})
                return
        self._line(rejection, now)

    def _entry(self, rejection: Rejection, speaker: Speaker, now: datetime) -> AuditEntry | None:
        window = int(now.timestamp()) // WINDOW_S
        if window != self._window:
            self._window, self._entries = window, {}
        if speaker.tenant_id not in self._entries and len(self._entries) >= MAX_TENANTS:
            return None
        known = self._entries.setdefault(speaker.tenant_id, set())
        who = f"{rejection.code}\n{rejection.route}\n{speaker.subject}\n{speaker.client_app}"
        digest = hashlib.sha256(who.encode()).hexdigest()[:24]
        if digest in known or len(known) >= MAX_RECORDS:
            return None
        known.add(digest)
        kind = AuditType.QUOTA_REFUSED if rejection.code.startswith("quota.") else AuditType.AUTH_REJECTED
        return AuditEntry(
            tenant_id=speaker.tenant_id,
            # The same in every process, so that many of them write one record.
            entry_id=f"{kind.value.partition('.')[0]}/{window}/{digest}/{kind.value}",
            type=kind,
            at=now,
            actor=speaker.subject,
            body={"code": rejection.code, "route": rejection.route, "client_app": speaker.client_app},
        )

    def _line(self, rejection: Rejection, now: datetime) -> None:
        since = self._lines_since
        if since is None or not timedelta() <= now - since < timedelta(seconds=LINES_WINDOW_S):
            if self._suppressed:
                _LOG.warning("rejections not told one by one: %d", self._suppressed)
            self._lines_since, self._lines, self._suppressed = now, 0, 0
        if self._lines >= MAX_LINES:
            self._suppressed += 1
            return
        self._lines += 1
        _LOG.warning("rejected", extra={"code": rejection.code, "route": rejection.route})
