"""How many runs of a tenant are under way at once, as a pure reducer: leases with an expiry, taken once per run.

A run holds one lease from its start to its end and renews it while it lasts. Whoever dies without giving it back loses it when
it expires. Everything is idempotent by the lease's id, and what was given back leaves a tombstone for a while, so that a late
duplicate of its request takes no capacity. Expired entries are dropped by every operation; all lists are bounded.

A run that is told to wait asks again. A newcomer does not overtake those who wait: it gets a place only when there are more
free places than runs waiting. Deliberately without a clock, and without knowing what a run is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from engine.domain.base import JsonObject

TOMBSTONE_MS = 600_000
"""How long a lease that was given back is remembered."""
WAITER_MS = 30_000
"""How long one counts as waiting after it asked; those who wait ask more often than this."""
MAX_TOMBSTONES = 512
MAX_WAITERS = 1_000
MAX_LIMIT = 1_000
"""The most leases at once, whatever is asked for: the state stays small."""

LONGEST_MS = 86_400_000
"""What a tenant's leases may last at the most."""

Entry = tuple[str, int]
"""A lease id and when it no longer counts, in Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Acquire:
    """Have a lease for ``lease_ms`` if fewer than ``limit`` are held. Asking again with a held lease prolongs it."""

    lease_id: str
    limit: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Hold the lease for another ``lease_ms``. One that has expired is taken back even above the limit: its run goes on, so it
    counts, and nobody new is admitted before there is room again."""

    lease_id: str
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Release:
    """Give the lease back, or stop waiting for it."""

    lease_id: str


QuotaOp: TypeAlias = Acquire | Renew | Release


@dataclass(frozen=True, slots=True)
class QuotaResult:
    """``granted`` answers Acquire and Renew; ``ended`` says that the lease was given back before, so it is never granted again.
    ``held`` and ``waiting`` count after the operation."""

    granted: bool
    held: int
    waiting: int
    ended: bool = False

    def to_json(self) -> JsonObject:
        """Plain JSON."""
        return {"granted": self.granted, "held": self.held, "waiting": self.waiting, "ended": self.ended}


@dataclass(frozen=True, slots=True)
class QuotaState:
    """Leases in the order they were granted, tombstones and waiting ones in the order they came. ``longest_ms`` is the longest
    that a lease was granted for since there were none: runs keep the length that they were admitted with."""

    leases: tuple[Entry, ...] = ()
    ended: tuple[Entry, ...] = ()
    waiting: tuple[Entry, ...] = ()
    longest_ms: int = 0

    def to_json(self) -> JsonObject:
        """Small JSON with ids and integers only."""
        entries = {name: [list(entry) for entry in getattr(self, name)] for name in ("leases", "ended", "waiting")}
        return {**entries, "longest_ms": self.longest_ms}

    @classmethod
    def from_json(cls, state: JsonObject) -> QuotaState:
        """The state of ``to_json``. An earlier build did not write down how long its leases were."""
        leases, ended, waiting = (
            tuple((key, at) for key, at in state[name]) for name in ("leases", "ended", "waiting")
        )
        return cls(leases, ended, waiting, state.get("longest_ms", LONGEST_MS))

    def live(self, now_ms: int) -> QuotaState:
        """Without what has expired. What would last longer than anything of its kind, after the clock was set back, lasts as
        long as if it had been written now."""
        leases = _live(self.leases, now_ms, self.longest_ms)
        return QuotaState(
            leases,
            _live(self.ended, now_ms, TOMBSTONE_MS),
            _live(self.waiting, now_ms, WAITER_MS),
            self.longest_ms if leases else 0,
        )


def apply_quota(state: QuotaState, op: QuotaOp, now_ms: int) -> tuple[QuotaState, QuotaResult]:
    """The state after ``op`` at ``now_ms`` (Unix milliseconds), and what came of it.

    ``ValueError`` when a limit or a duration is below 1."""
    state = state.live(now_ms)
    match op:
        case Acquire(lease_id, limit, lease_ms):
            _require_positive(limit, lease_ms)
            return _acquired(state, op, now_ms)
        case Renew(lease_id, lease_ms):
            _require_positive(lease_ms)
            if _has(state.ended, lease_id):
                return state, _result(state, granted=False, ended=True)
            return _granted(state, op, now_ms)
        case Release(lease_id):
            ended = (*_without(state.ended, lease_id), (lease_id, now_ms + TOMBSTONE_MS))[-MAX_TOMBSTONES:]
            leases, waiting = _without(state.leases, lease_id), _without(state.waiting, lease_id)
            state = QuotaState(leases, ended, waiting, state.longest_ms if leases else 0)
            return state, _result(state, granted=False, ended=True)
        case _:
            assert_never(op)


def _acquired(state: QuotaState, op: Acquire, now_ms: int) -> tuple[QuotaState, QuotaResult]:
    if _has(state.ended, op.lease_id):
        return state, _result(state, granted=False, ended=True)
    free = min(op.limit, MAX_LIMIT) - len(state.leases)
    in_turn = free > 0 and (_has(state.waiting, op.lease_id) or free > len(state.waiting))
    if in_turn or _has(state.leases, op.lease_id):
        return _granted(state, op, now_ms)
    others = _without(state.waiting, op.lease_id)
    state = replace(state, waiting=(*others, (op.lease_id, now_ms + WAITER_MS))[-MAX_WAITERS:])
    return state, _result(state, granted=False)


def _granted(state: QuotaState, op: Acquire | Renew, now_ms: int) -> tuple[QuotaState, QuotaResult]:
    leases = (*_without(state.leases, op.lease_id), (op.lease_id, now_ms + op.lease_ms))
    longest_ms, waiting = max(state.longest_ms, op.lease_ms), _without(state.waiting, op.lease_id)
    state = replace(state, leases=leases, waiting=waiting, longest_ms=longest_ms)
    return state, _result(state, granted=True)


def _result(state: QuotaState, *, granted: bool, ended: bool = False) -> QuotaResult:
    return QuotaResult(granted, len(state.leases), len(state.waiting), ended)


def _live(entries: tuple[Entry, ...], now_ms: int, most_ms: int) -> tuple[Entry, ...]:
    return tuple((key, min(until_ms, now_ms + most_ms)) for key, until_ms in entries if until_ms > now_ms)


def _without(entries: tuple[Entry, ...], lease_id: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry[0] != lease_id)


def _has(entries: tuple[Entry, ...], lease_id: str) -> bool:
    return any(known == lease_id for known, _ in entries)


def _require_positive(*figures: int) -> None:
    if min(figures) < 1:
        raise ValueError("a limit and a duration are at least 1")
