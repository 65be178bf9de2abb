"""Who was turned away at the door: an audit record where the tenant is known, a line in the security log where it is not.

Knocking is free for whoever does it, so both are bounded. Per tenant and five minutes, one reason of one caller at one route is
one record, and there are at most ``MAX_RECORDS`` of them. What goes beyond, repetitions too, is counted by its code, and the
counts are records of their own ``FLUSH_AFTER_S`` after the first of them and when the five minutes are over, so that nothing is
invisible and a process that is killed takes half a minute of counts with it. Unknown callers share ``MAX_LINES``
lines a minute of a process; what goes beyond is counted, and the count is told. Nothing of the token is kept but what its
verified claims say about the caller.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from engine.domain.audit import ENGINE_ACTOR, AuditEntry, AuditType
from engine.domain.base import iso_utc
from engine.ports.audit_log import AuditLog
from engine.ports.clock import Clock
from engine.ports.identity import Rejection, Speaker

WINDOW_S = 300
FLUSH_AFTER_S = 30.0
"""How long a count waits for its record: at most ten records of a kind in five minutes, for each process and tenant."""
MAX_RECORDS = 100
MAX_LINES = 30
LINES_WINDOW_S = 60
MAX_TENANTS = 10_000
"""Tenants counted at once; more than that in five minutes share the security log's bound."""
FEW = 4
"""Counts that one refused caller waits for."""
MAX_DUE = 20_000
"""Counts that wait for a store that is away; the oldest are given up first, with a line in the log."""

_LOG = logging.getLogger("livoa.security")


@dataclass(slots=True)
class _Window:
    """Five minutes of one process: what has been recorded one by one, and how often something was not."""

    number: int
    told: dict[str, set[str]] = field(default_factory=dict)
    untold: dict[str, Counter[str]] = field(default_factory=dict)
    since: datetime | None = None

    def count(self, tenant_id: str, code: str, now: datetime) -> None:
        """One more that has no record of its own."""
        if not self.untold:
            self.since = now
        self.untold.setdefault(tenant_id, Counter())[code] += 1


class AuditedRejections:
    """Implements ``RejectionLog`` over the audit log of the tenants."""

    def __init__(self, audit: AuditLog, clock: Clock, *, flush_after_s: float = FLUSH_AFTER_S) -> None:
        self._audit, self._clock, self._flush_after_s = audit, clock, flush_after_s
        self._flush: asyncio.Task[None] | None = None
        self._flushed = 0
        self._process = secrets.token_hex(8)
        self._window = _Window(-1)
        self._due: list[AuditEntry] = []
        self._lines_since: datetime | None = None
        self._lines = 0
        self._suppressed = 0

    async def record(self, rejection: Rejection) -> None:
        """See ``RejectionLog.record``."""
        await self._write_counts(at_most=FEW)
        now, speaker = self._clock.now(), rejection.speaker
        if speaker is None or not self._counts(speaker):
            self._line(rejection, now)
            return
        window = self._window
        entry = self._entry(rejection, speaker, now)
        if entry is None:
            self._count(window, speaker.tenant_id, rejection.code, now)
            return
        try:
            await self._audit.append(entry)
        except Exception:
            # The caller is refused whether or not it can be recorded.
            self._count(window, speaker.tenant_id, rejection.code, now)
            _LOG.warning("rejection cannot be audited", extra={"code": rejection.code, "route": rejection.route})

    async def close(self) -> None:
        """See ``RejectionLog.close``."""
        await self._write_counts(at_most=MAX_DUE)

    def _count(self, window: _Window, tenant_id: str, code: str, now: datetime) -> None:
        """Count it, and have the counts written in a while: there may be no other call of this process before it is killed."""
        window.count(tenant_id, code, now)
        if self._flush is None or self._flush.done() or self._flush.get_loop().is_closed():
            self._flush = asyncio.create_task(self._flush_later())

    async def _flush_later(self) -> None:
        await asyncio.sleep(self._flush_after_s)
        self._settle(self._window)
        await self._write_counts(at_most=MAX_DUE)

    def _settle(self, window: _Window) -> None:
        """What a window has counted so far is to be written."""
        self._due += self._counted(window)
        window.untold = {}
        if len(self._due) > MAX_DUE:
            _LOG.error("counts of rejections are given up: %d", len(self._due) - MAX_DUE)
            del self._due[:-MAX_DUE]

    async def _write_counts(self, *, at_most: int) -> None:
        number = int(self._clock.now().timestamp()) // WINDOW_S
        if number != self._window.number:
            over, self._window = self._window, _Window(number)
            self._settle(over)
        due, self._due = self._due[:at_most], self._due[at_most:]
        written = 0
        try:
            for entry in due:
                await self._audit.append(entry)
                written += 1
        except Exception:
            _LOG.warning("counts of rejections cannot be audited yet: %d", len(due) - written)
        finally:  # also when whoever writes them is cancelled
            self._due = due[written:] + self._due

    def _counts(self, speaker: Speaker) -> bool:
        told = self._window.told
        return speaker.tenant_id in told or len(told) < MAX_TENANTS

    def _counted(self, window: _Window) -> list[AuditEntry]:
        """How often each code was refused in a window without a record of its own, since that was last told."""
        since = window.since or self._clock.now()
        self._flushed += 1
        found = []
        for tenant_id, counts in window.untold.items():
            for kind in (AuditType.AUTH_REJECTED, AuditType.QUOTA_REFUSED):
                codes = {code: count for code, count in sorted(counts.items()) if _kind(code) is kind}
                if not codes:
                    continue
                found.append(
                    AuditEntry(
                        tenant_id=tenant_id,
                        # Every process has counts of its own, and tells them more than once.
                        entry_id=f"{_word(kind)}/{window.number}/{self._process}/counted/{kind.value}/{self._flushed}",
                        type=kind,
                        at=self._clock.now(),
                        actor=ENGINE_ACTOR,
                        body={"since": iso_utc(since), "window_s": WINDOW_S, "not_one_by_one": codes},
                    )
                )
        return found

    def _entry(self, rejection: Rejection, speaker: Speaker, now: datetime) -> AuditEntry | None:
        """None when it is recorded in this window already, or is one too many of this tenant."""
        known = self._window.told.setdefault(speaker.tenant_id, set())
        who = f"{rejection.code}\n{rejection.route}\n{speaker.subject}\n{speaker.client_app}"
        digest = hashlib.sha256(who.encode()).hexdigest()[:24]
        if digest in known or len(known) >= MAX_RECORDS:
            return None
        known.add(digest)
        kind = _kind(rejection.code)
        return AuditEntry(
            tenant_id=speaker.tenant_id,
            # The same in every process, so that many of them write one record.
            entry_id=f"{_word(kind)}/{self._window.number}/{digest}/{kind.value}",
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


def _kind(code: str) -> AuditType:
    return AuditType.QUOTA_REFUSED if code.startswith("quota.") else AuditType.AUTH_REJECTED


def _word(kind: AuditType) -> str:
    return kind.value.partition(".")[0]
