"""The timer trigger: runs a function on its schedule, never twice at once, and notices what was missed while down.

With a monitor (the default, for schedules of a minute or more) the next due time is stored; a start after it runs
the function at once with `past_due`. The status is stored after a run, so a crash in the middle runs it again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from azure.functions.meta import Datum

from local_host.durable.clock import Clock
from local_host.errors import HostError
from local_host.invocation import FunctionError, Invoker, TriggerInput
from local_host.ncrontab import Schedule, parse_schedule
from local_host.specs import FunctionSpec, TimerTrigger

_log = logging.getLogger("local_host.timer")
_MONITOR_FROM = timedelta(minutes=1)
LOOK = timedelta(seconds=30)
"""How soon a clock that was set is noticed."""


@dataclass(frozen=True, slots=True)
class TimerStatus:
    """`schedule` is kept to notice a change; times are aware UTC."""

    schedule: str
    last_at: datetime | None
    next_at: datetime
    updated_at: datetime


class TimerStatusStore:
    """Timer status by function name in an SQLite file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS timer (name TEXT PRIMARY KEY, status TEXT NOT NULL)")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, name: str) -> TimerStatus | None:
        """The stored status; None when the timer never ran here."""
        row = self._db.execute("SELECT status FROM timer WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        fields = json.loads(row[0])
        last = fields["last"]
        return TimerStatus(
            fields["schedule"],
            datetime.fromisoformat(last) if last else None,
            datetime.fromisoformat(fields["next"]),
            datetime.fromisoformat(fields["updated"]),
        )

    def put(self, name: str, status: TimerStatus) -> None:
        """Store the status."""
        text = json.dumps(
            {
                "schedule": status.schedule,
                "last": status.last_at.isoformat() if status.last_at else None,
                "next": status.next_at.isoformat(),
                "updated": status.updated_at.isoformat(),
            }
        )
        self._db.execute("INSERT OR REPLACE INTO timer VALUES (?, ?)", (name, text))


class TimerListener:
    """Runs one timer function."""

    def __init__(self, spec: FunctionSpec, invoker: Invoker, clock: Clock, store: TimerStatusStore) -> None:
        assert isinstance(spec.trigger, TimerTrigger)
        self._spec, self._trigger = spec, spec.trigger
        self._invoker, self._clock, self._store = invoker, clock, store
        self._schedule: Schedule = parse_schedule(self._trigger.schedule, where=spec.name)
        self._monitored = self._trigger.use_monitor and is_monitorable(self._schedule, clock.now())
        self._running = False
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to wait for the schedule; a startup or missed run happens first."""
        status = self._store.get(self._spec.name) if self._monitored else None
        missed = status is not None and self._due_after(status) <= self._clock.now()
        if status is None or status.schedule != self._trigger.schedule or status.updated_at > self._clock.now():
            # New, edited, or written by a clock that has been set back since: what was next may be years away.
            status = self._next_status(status.last_at if status else None)
        if self._monitored and not missed:
            self._keep(status)
        self._task = asyncio.create_task(self._run(status, missed=missed), name=f"timer:{self._spec.name}")

    async def stop(self, drain_s: float) -> None:
        """Start no more runs; a run under way gets `drain_s` to end."""
        if self._task is None:
            return
        self._stopping = True
        if self._running:
            await asyncio.wait({self._task}, timeout=drain_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _due_after(self, status: TimerStatus) -> datetime:
        if status.schedule == self._trigger.schedule:
            return status.next_at
        # The schedule was edited while the host was down: what counts is when the new one would have fired.
        return self._schedule.next_after(status.last_at or status.updated_at) or datetime.max.replace(tzinfo=UTC)

    def _next_status(self, last_at: datetime | None) -> TimerStatus:
        now = self._clock.now()
        next_at = self._schedule.next_after(now)
        if next_at is None:
            raise HostError("host.bad_schedule", f"{self._trigger.schedule!r} has no next time", self._spec.name)
        return TimerStatus(self._trigger.schedule, last_at, next_at, now)

    async def _run(self, status: TimerStatus, *, missed: bool) -> None:
        if missed or self._trigger.run_on_startup:
            status = await self._fire(status, past_due=missed)
        while not self._stopping:
            status = await self._reached(status)
            status = await self._fire(status, past_due=False)

    async def _reached(self, status: TimerStatus) -> TimerStatus:
        """Wait until it is time. A clock that was set back meanwhile makes the schedule's next time an earlier one."""
        looked_at = self._clock.now()
        while looked_at < status.next_at and not self._stopping:
            await self._until(min(status.next_at, looked_at + LOOK), LOOK)
            now = self._clock.now()
            if now < looked_at:
                status = self._next_status(status.last_at)
            looked_at = now
        return status

    async def _until(self, due_at: datetime, most: timedelta) -> None:
        reached = asyncio.Event()
        alarm = self._clock.call_at(due_at, reached.set, within_s=most.total_seconds())
        try:
            await reached.wait()
        finally:
            alarm.cancel()

    async def _fire(self, status: TimerStatus, *, past_due: bool) -> TimerStatus:
        started_at = self._clock.now()
        self._running = True
        try:
            await self._invoker.call(self._spec, _input(status, past_due=past_due))
        except FunctionError as err:
            _log.error("function %s failed\n%s", err.function_name, err.host_text())
        finally:
            self._running = False
        following = self._next_status(started_at)
        if self._monitored:
            self._keep(following)
        return following

    def _keep(self, status: TimerStatus) -> None:
        try:
            self._store.put(self._spec.name, status)
        except (
            sqlite3.Error
        ) as err:  # a full disk and the like: a restart before the next time may run the function once more
            _log.error("function %s: the timer's status is not kept (%s)", self._spec.name, type(err).__name__)


def is_monitorable(schedule: Schedule, now: datetime) -> bool:
    """The platform keeps no status for schedules that fire more often than once a minute."""
    moment_at: datetime | None = schedule.next_after(now)
    for _ in range(5):
        if moment_at is None:
            return True
        following_at = schedule.next_after(moment_at)
        if following_at is not None and following_at - moment_at < _MONITOR_FROM:
            return False
        moment_at = following_at
    return True


def refuse_time_zone(environment: Mapping[str, str]) -> None:
    """Raises HostError `host.unsupported_setting` for WEBSITE_TIME_ZONE other than UTC: schedules here are UTC."""
    zone = environment.get("WEBSITE_TIME_ZONE", "")
    if zone and zone.upper() not in {"UTC", "ETC/UTC"}:
        raise HostError(
            "host.unsupported_setting", "this host evaluates timer schedules in UTC only; unset it", "WEBSITE_TIME_ZONE"
        )


def _input(status: TimerStatus, *, past_due: bool) -> TriggerInput:
    body = {
        "Schedule": {"AdjustForDST": True},
        "ScheduleStatus": {
            "Last": _iso(status.last_at) if status.last_at else "0001-01-01T00:00:00+00:00",
            "Next": _iso(status.next_at),
            "LastUpdated": _iso(status.updated_at),
        },
        "IsPastDue": past_due,
    }
    return TriggerInput(Datum(json.dumps(body), "json"), {})


def _iso(moment_at: datetime) -> str:
    return moment_at.astimezone(UTC).isoformat()
