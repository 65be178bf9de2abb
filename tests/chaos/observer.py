"""What the world saw of one run: deliveries, calls, effects, records, audit entries, each with its place in one sequence.

It stands behind the faults: a write that was durable although its caller was told otherwise is seen here. It judges nothing;
``invariants`` does.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from engine.adapters.otel.logs import JsonFormatter
from engine.domain.ids import undo_id
from engine.domain.names import REPAIR_PLAN, UNDO_STEP
from engine.domain.run import StepRecord
from engine.domain.status import StepStatus
from local_host.durable.clock import VirtualClock

Key = tuple[str, int | None]
"""A step, or one item of a map."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of one activity. ``regular`` is False for those the adversary made up."""

    serial: int
    name: str
    payload: dict[str, Any]
    regular: bool

    @property
    def key(self) -> Key:
        """Which step or item it is about. Of an undoing, the step's: an activity goes through several items."""
        step_id = self.payload.get("step_id", "")
        return (undo_id(step_id) if self.name == UNDO_STEP else step_id), self.payload.get("item")


@dataclass(frozen=True, slots=True)
class CallFact:
    """One call as the agent saw it, with what was true at that moment."""

    serial: int
    key: Key
    attempt: int
    idempotency_key: str
    delivery: Delivery
    had_intent: bool
    final_before: StepStatus | None
    needs: dict[str, StepStatus | None]
    cancelled_before: bool
    held: bool
    failed_before: bool
    refused: bool
    revoked: bool


DELIVERY: ContextVar[Delivery] = ContextVar("chaos_delivery")


@dataclass(slots=True)
class Observer:
    """The facts, in order of ``serial``, and a few times, of a clock that nobody sets."""

    clock: VirtualClock
    serial: int = 0
    calls: list[CallFact] = field(default_factory=list)
    effects: Counter[Key] = field(default_factory=Counter)
    finals: dict[Key, tuple[int, StepStatus]] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)
    first_ats: dict[Key, datetime] = field(default_factory=dict)
    final_ats: dict[Key, datetime] = field(default_factory=dict)
    in_flight: Counter[tuple[str, Key]] = field(default_factory=Counter)
    most_in_flight: int = 0
    effect_order: list[Key] = field(default_factory=list)
    holds: list[list[int | None]] = field(default_factory=list)
    granted: dict[str, int] = field(default_factory=dict)
    terminated: bool = False
    cancelled_at: int | None = None
    quiet_cancel_at: datetime | None = None
    revoked_at: int | None = None
    retried: dict[tuple[Key, int], int] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    malformed: set[Key] = field(default_factory=set)
    jumps_s: list[float] = field(default_factory=list)
    last_begun_at: datetime | None = None
    longest_gap_s: float = 0.0
    waits: set[Key] = field(default_factory=set)
    crashes: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def next(self) -> int:
        """The next place in the sequence."""
        self.serial += 1
        return self.serial

    def set_clock(self, seconds: float) -> None:
        """Somebody sets the clock, forwards or back."""
        if seconds:
            self.jumps_s.append(seconds)
            self.clock.set_by_s(seconds)

    @property
    def set_back(self) -> timedelta:
        """By how much the clock was set back in all."""
        return -timedelta(seconds=sum(jump_s for jump_s in self.jumps_s if jump_s < 0))

    @property
    def latest_at(self) -> datetime:
        """The time it may be for somebody who follows the clock forwards and never back."""
        return self.clock.now() + self.set_back

    def wrote(self, store: str, method: str, args: tuple[Any, ...], result: Any) -> None:
        """A store did what it was asked."""
        if (store, method) == ("runs", "put_step"):
            self._wrote_step(args[0], written=result)
        elif (store, method) == ("audit", "append"):
            self.entries.setdefault(args[0].entry_id, self.next())
        elif store == "calls":
            # A commit around a call: the entry that stands after it, and the step's record if it was asked for its place.
            record, entry_id = args
            if entry_id is not None:
                self.entries.setdefault(entry_id, self.next())
            if result is not None:
                self._wrote_step(record, written=result)

    def _wrote_step(self, record: StepRecord, *, written: bool) -> None:
        key = (record.step_id, record.item)
        if record.kind == "wait":
            (self.waits.discard if record.status.is_final else self.waits.add)(key)
        if not written:
            self.refused.add(DELIVERY.get().serial)
        elif record.status.is_final:
            self.finals.setdefault(key, (self.next(), record.status))
            self.final_ats.setdefault(key, self.clock.steady_at)
        elif record.status is StepStatus.WAITING and record.approval_id is None:
            self.retried.setdefault((key, record.attempt), self.next())

    def begin(self, name: str, payload: dict[str, Any], *, regular: bool) -> Delivery:
        """An activity starts."""
        delivery = Delivery(self.next(), name, payload, regular)
        if regular:
            now = self.clock.steady_at
            gap_s = (now - (self.last_begun_at or now)).total_seconds()
            self.last_begun_at = now
            if not self.waits:
                self.longest_gap_s = max(self.longest_gap_s, gap_s)
        # What is asked again about finished work answers from its record and calls nothing, so it takes no place.
        if regular and "step_id" in payload and name != REPAIR_PLAN and delivery.key not in self.finals:
            self.first_ats.setdefault(delivery.key, self.clock.steady_at)
            self.in_flight[name, delivery.key] += 1
            self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        return delivery

    def end(self, delivery: Delivery) -> None:
        """The activity returned, raised, or died with its host."""
        place = (delivery.name, delivery.key)
        if delivery.regular and place in self.in_flight:
            self.in_flight[place] -= 1
            if self.in_flight[place] <= 0:
                del self.in_flight[place]

    def final_before(self, key: Key, serial: int) -> StepStatus | None:
        """The final status a step had before ``serial``."""
        found = self.finals.get(key)
        return found[1] if found is not None and found[0] < serial else None


class LogCapture(logging.Handler):
    """Everything that was logged, as the project's own formatter and as a plain one would write it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._json, self._plain = JsonFormatter(), logging.Formatter("%(name)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record. Our own loggers are only ever written as JSON; others may be written with their traceback."""
        formatter = self._json if record.name.startswith("livoa") else self._plain
        self.lines.append(formatter.format(record))
        record.exc_text = None
