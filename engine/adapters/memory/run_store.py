"""Runs, steps and events in memory. Not durable: only tests may rely on it.

Every write is worked out in full before anything is assigned, so a write that fails leaves nothing behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.adapters.run_cursor import cursor_after, position_of
from engine.adapters.store_rules import (
    bounded,
    changed,
    counted,
    distinct,
    event_data,
    event_data_text,
    replaces,
    resumed,
    run_not_found,
    same_request,
    unfinished_among,
)
from engine.adapters.wakeups import Wakeups
from engine.domain.base import iso_utc
from engine.domain.events import NewEvent, RunEvent
from engine.domain.run import Run, StepRecord
from engine.domain.run_messages import LIFECYCLE_EVENTS
from engine.domain.status import RunStatus
from engine.ports.clock import Clock
from engine.ports.run_messages import WaitingRun
from engine.ports.run_store import ALL_RUNS, CreateResult, IdempotencyClaim, RunChange, RunCounts, RunFilter, RunPage


@dataclass(slots=True)
class _Held:
    """A run with everything that belongs to it."""

    run: Run
    events: list[RunEvent] = field(default_factory=list)
    event_keys: set[str] = field(default_factory=set)
    steps: dict[tuple[str, int | None], StepRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Appended:
    events: tuple[RunEvent, ...]
    keys: frozenset[str]


class MemoryRunStore:
    """Runs by tenant and id. ``MemoryEventLog`` and, with ``outbox``, ``MemoryOutbox`` work in the same memory."""

    def __init__(self, clock: Clock, *, outbox: bool = False) -> None:
        self._clock = clock
        self._outbox: list[RunEvent] | None = [] if outbox else None
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str], _Held] = {}
        self._claims: dict[tuple[str, str, str], tuple[str, str]] = {}
        self.wakeups = Wakeups()

    async def create(self, run: Run, events: Sequence[NewEvent], claim: IdempotencyClaim | None) -> CreateResult:
        """See ``RunStore.create``."""
        with self._lock:
            known = self._claims.get((run.tenant_id, run.principal.subject, claim.key)) if claim else None
            if claim is not None and known is not None:
                request_sha256, run_id = known
                existing = self._runs[run.tenant_id, run_id].run
                return CreateResult("existing" if request_sha256 == claim.request_sha256 else "mismatch", existing)
            held = self._runs.get((run.tenant_id, run.run_id))
            if held is not None:
                return CreateResult("existing" if same_request(held.run, run) else "mismatch", held.run)
            new = _Held(run)
            self._commit(new, self._prepared(new, events))
            self._runs[run.tenant_id, run.run_id] = new
            if claim is not None:
                self._claims[run.tenant_id, run.principal.subject, claim.key] = (claim.request_sha256, run.run_id)
        return CreateResult("created", run)

    async def get(self, tenant_id: str, run_id: str) -> Run | None:
        """See ``RunStore.get``."""
        with self._lock:
            held = self._runs.get((tenant_id, run_id))
            return held.run if held else None

    def everything(self, tenant_id: str) -> tuple[Run, ...]:
        """Every run of a tenant."""
        with self._lock:
            return tuple(held.run for (tenant, _), held in self._runs.items() if tenant == tenant_id)

    def forget(self, tenant_id: str, run_id: str) -> bool:
        """Remove a run with its steps, events and claim. False when it is not there."""
        with self._lock:
            for key, (_, claimed) in list(self._claims.items()):
                if (key[0], claimed) == (tenant_id, run_id):
                    del self._claims[key]
            if self._outbox is not None:
                self._outbox = [e for e in self._outbox if (e.tenant_id, e.run_id) != (tenant_id, run_id)]
            return self._runs.pop((tenant_id, run_id), None) is not None

    async def page(
        self,
        tenant_id: str,
        *,
        status: RunStatus | None,
        cursor: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> RunPage:
        """See ``RunStore.page``. At most 1,000 runs a page."""
        which = RunFilter(status, since, until)
        position = position_of(cursor, tenant_id, which) if cursor is not None else None
        found = [run for run in self._matching(tenant_id, which) if position is None or _place(run) < position]
        size = bounded(limit)
        more = len(found) > size
        return RunPage(tuple(found[:size]), cursor_after(found[size - 1], which) if more else None)

    async def counts(self, tenant_id: str, which: RunFilter = ALL_RUNS) -> RunCounts:
        """See ``RunStore.counts``."""
        return counted([run.status for run in self._matching(tenant_id, which)])

    def _matching(self, tenant_id: str, which: RunFilter) -> list[Run]:
        """Runs of a tenant, newest first."""
        with self._lock:
            runs = [held.run for (tenant, _), held in self._runs.items() if tenant == tenant_id]
        return sorted(
            (
                run
                for run in runs
                if which.status in (None, run.status)
                and (which.since is None or run.created_at >= which.since)
                and (which.until is None or run.created_at < which.until)
            ),
            key=_place,
            reverse=True,
        )

    async def change(
        self,
        tenant_id: str,
        run_id: str,
        change: RunChange,
        events: Sequence[NewEvent] = (),
        *,
        only_from: frozenset[RunStatus] | None = None,
    ) -> Run:
        """See ``RunStore.change``."""
        with self._lock:
            held = self._held(tenant_id, run_id)
            appended = self._prepared(held, events)
            repeated = bool(events) and not appended.events
            run = changed(held.run, change, self._clock.now(), only_from=only_from, repeated=repeated)
            held.run = run
            self._commit(held, appended)
        self.wakeups.notify((tenant_id, run_id))
        return run

    async def put_step(self, step: StepRecord, events: Sequence[NewEvent] = (), *, add_cost_micro_usd: int = 0) -> bool:
        """See ``RunStore.put_step``."""
        with self._lock:
            held = self._held(step.tenant_id, step.run_id)
            if held.run.status.is_final or not replaces(held.steps.get((step.step_id, step.item)), step):
                return False
            appended = self._prepared(held, events)
            held.run = resumed(held.run, step, self._clock.now()) or held.run
            if add_cost_micro_usd and not (events and not appended.events):
                cost = RunChange(add_cost_micro_usd=add_cost_micro_usd)
                held.run = changed(held.run, cost, self._clock.now(), only_from=None, repeated=False)
            held.steps[step.step_id, step.item] = step
            self._commit(held, appended)
        self.wakeups.notify((step.tenant_id, step.run_id))
        return True

    async def get_step(self, tenant_id: str, run_id: str, step_id: str, item: int | None = None) -> StepRecord | None:
        """See ``RunStore.get_step``."""
        with self._lock:
            held = self._runs.get((tenant_id, run_id))
            return held.steps.get((step_id, item)) if held else None

    async def get_with_step(
        self, tenant_id: str, run_id: str, step_id: str, item: int | None = None
    ) -> tuple[Run | None, StepRecord | None]:
        """See ``RunStore.get_with_step``."""
        with self._lock:
            held = self._runs.get((tenant_id, run_id))
            return (held.run, held.steps.get((step_id, item))) if held else (None, None)

    async def steps(self, tenant_id: str, run_id: str) -> tuple[StepRecord, ...]:
        """See ``RunStore.steps``."""
        with self._lock:
            held = self._runs.get((tenant_id, run_id))
            records = [record for (_, item), record in held.steps.items() if item is None] if held else []
        return tuple(sorted(records, key=lambda record: record.step_id))

    async def items(self, tenant_id: str, run_id: str, step_id: str) -> tuple[StepRecord, ...]:
        """See ``RunStore.items``."""
        with self._lock:
            held = self._runs.get((tenant_id, run_id))
            records = held.steps.values() if held else ()
            return tuple(
                sorted((r for r in records if r.step_id == step_id and r.item is not None), key=lambda r: r.item or 0)
            )

    async def unfinished(self, limit: int, *, statuses: frozenset[RunStatus] | None = None) -> tuple[Run, ...]:
        """See ``RunStore.unfinished``. At most 1,000 runs."""
        wanted = unfinished_among(statuses)
        with self._lock:
            runs = [held.run for held in self._runs.values() if held.run.status.value in wanted]
        return tuple(sorted(runs, key=lambda run: (*_place(run), run.tenant_id))[: bounded(limit)])

    def peek(self, tenant_id: str, run_id: str) -> Run | None:
        """The run as it stands."""
        with self._lock:
            held = self._runs.get((tenant_id, run_id))
            return held.run if held else None

    def records(self, tenant_id: str, run_id: str) -> list[StepRecord]:
        """The records of all steps and items. Only within ``apply``, which holds the lock."""
        held = self._runs.get((tenant_id, run_id))
        return list(held.steps.values()) if held else []

    def apply(
        self, tenant_id: str, run_id: str, work: Callable[[Run], tuple[RunChange | None, list[NewEvent]]]
    ) -> None:
        """Carry out, in one step, what ``work`` makes of the run: a change of it, if any, and events."""
        with self._lock:
            held = self._held(tenant_id, run_id)
            change, events = work(held.run)
            appended = self._prepared(held, events)
            if change is not None:
                held.run = changed(held.run, change, self._clock.now(), only_from=None, repeated=False)
            self._commit(held, appended)
        self.wakeups.notify((tenant_id, run_id))

    def append_events(self, tenant_id: str, run_id: str, events: Sequence[NewEvent]) -> tuple[RunEvent, ...]:
        """What ``MemoryEventLog.append`` does, in this store's memory."""
        with self._lock:
            held = self._held(tenant_id, run_id)
            if held.run.status.is_final:
                return ()
            appended = self._prepared(held, events)
            self._commit(held, appended)
        self.wakeups.notify((tenant_id, run_id))
        return appended.events

    def read_events(self, tenant_id: str, run_id: str, after_seq: int, limit: int) -> tuple[RunEvent, ...]:
        """What ``MemoryEventLog.read`` does, in this store's memory."""
        with self._lock:
            held = self._runs.get((tenant_id, run_id))
            return tuple(held.events[max(0, after_seq) :][: bounded(limit)]) if held else ()

    def outbox(self) -> tuple[RunEvent, ...]:
        """What other systems are to be told of, the oldest first."""
        with self._lock:
            return tuple(self._outbox or ())

    def told(self, tenant_id: str, run_id: str, through_seq: int) -> None:
        """What ``MemoryOutbox.told`` does, in this store's memory."""
        with self._lock:
            self._outbox = [
                event
                for event in self._outbox or ()
                if (event.tenant_id, event.run_id) != (tenant_id, run_id) or event.seq > through_seq
            ]

    def _held(self, tenant_id: str, run_id: str) -> _Held:
        held = self._runs.get((tenant_id, run_id))
        if held is None:
            raise run_not_found(run_id)
        return held

    def _prepared(self, held: _Held, events: Sequence[NewEvent]) -> _Appended:
        new = {key: event for key, event in distinct(events).items() if key not in held.event_keys}
        at = self._clock.now()
        appended = tuple(
            RunEvent(
                tenant_id=held.run.tenant_id,
                run_id=held.run.run_id,
                seq=len(held.events) + offset,
                type=event.type,
                at=at,
                data=event_data(event_data_text(event)),
            )
            for offset, event in enumerate(new.values(), start=1)
        )
        return _Appended(appended, frozenset(new))

    def _commit(self, held: _Held, appended: _Appended) -> None:
        if self._outbox is not None:
            self._outbox.extend(event for event in appended.events if event.type in LIFECYCLE_EVENTS)
        held.events.extend(appended.events)
        held.event_keys |= appended.keys


class MemoryOutbox:
    """The outbox of a ``MemoryRunStore``."""

    def __init__(self, store: MemoryRunStore) -> None:
        self._store = store

    async def runs_waiting(self, limit: int) -> tuple[WaitingRun, ...]:
        """See ``Outbox.runs_waiting``."""
        runs = dict.fromkeys(WaitingRun(event.tenant_id, event.run_id) for event in self._store.outbox())
        return tuple(runs)[: bounded(limit)]

    async def waiting(self, tenant_id: str, run_id: str, limit: int) -> tuple[RunEvent, ...]:
        """See ``Outbox.waiting``. At most 1,000."""
        of_run = [e for e in self._store.outbox() if (e.tenant_id, e.run_id) == (tenant_id, run_id)]
        return tuple(of_run[: bounded(limit)])

    async def told(self, tenant_id: str, run_id: str, *, through_seq: int) -> None:
        """See ``Outbox.told``."""
        self._store.told(tenant_id, run_id, through_seq)


class MemoryEventLog:
    """The event logs of a ``MemoryRunStore``."""

    def __init__(self, store: MemoryRunStore) -> None:
        self._store = store

    async def append(self, tenant_id: str, run_id: str, events: Sequence[NewEvent]) -> tuple[RunEvent, ...]:
        """See ``EventLog.append``."""
        return self._store.append_events(tenant_id, run_id, events)

    async def read(self, tenant_id: str, run_id: str, *, after_seq: int, limit: int) -> tuple[RunEvent, ...]:
        """See ``EventLog.read``. At most 1,000 events a call."""
        return self._store.read_events(tenant_id, run_id, after_seq, limit)

    async def wait(self, tenant_id: str, run_id: str, *, after_seq: int, timeout_s: float) -> bool:
        """See ``EventLog.wait``."""

        async def holds() -> bool:
            return bool(self._store.read_events(tenant_id, run_id, after_seq, 1))

        return await self._store.wakeups.wait((tenant_id, run_id), holds, timeout_s)


def _place(run: Run) -> tuple[str, str]:
    return iso_utc(run.created_at), run.run_id
