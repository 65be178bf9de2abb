"""A circuit breaker as a pure reducer: closed, open for a while, half-open with a few probes, closed again.

Made for sparse traffic, where a long window would let dozens of calls hit a dead service: it opens on half of at least ten
calls failing within ten seconds, or on five failures in a row. Every change of phase begins a new **generation**; a report
carries the generation of its permit, and one of an older generation is ignored, so a late success closes nothing.

Which failures count is the reporter's decision: time-outs, refused connections, 429 and 5xx are failures; bad credentials and
bad requests of one caller are ``neutral``, or one tenant could open the circuit for all. Deliberately without a clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, assert_never

from engine.domain.base import JsonObject

Phase = Literal["closed", "open", "half_open"]
CallOutcome = Literal["success", "failure", "slow", "neutral"]
"""``slow``: it succeeded, but took longer than it may; it counts half of a failure, and half of a success when probing."""

_MS_PER_S = 1_000
# Calls are counted in halves, because a slow one counts half and states hold integers only.
_HALVES: dict[CallOutcome, int] = {"success": 0, "failure": 2, "slow": 1, "neutral": 0}
_WHOLE = 2


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a circuit opens, for how long, and what closes it. The jitter takes up to a fifth off a break."""

    window_s: int = 10
    min_calls: int = 10
    failure_percent: int = 50
    consecutive_failures: int = 5
    first_break_ms: int = 5_000
    max_break_ms: int = 60_000
    probes: int = 2
    probe_ttl_ms: int = 60_000
    successes_to_close: int = 2


@dataclass(frozen=True, slots=True)
class Second:
    """The calls of one second, in halves of a call."""

    at_s: int
    calls: int
    failures: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one circuit. ``row`` counts failures in a row, ``successes`` those of probes, both in halves of a call;
    ``breaks`` counts the breaks since it was last closed; ``probes`` are (lease id, expiry) pairs."""

    phase: Phase = "closed"
    generation: int = 0
    window: tuple[Second, ...] = ()
    row: int = 0
    breaks: int = 0
    until_ms: int = 0
    probes: tuple[tuple[str, int], ...] = ()
    successes: int = 0

    def to_json(self) -> JsonObject:
        """Small JSON with integers only."""
        return {
            "phase": self.phase,
            "generation": self.generation,
            "window": [[s.at_s, s.calls, s.failures] for s in self.window],
            "row": self.row,
            "breaks": self.breaks,
            "until_ms": self.until_ms,
            "probes": [list(probe) for probe in self.probes],
            "successes": self.successes,
        }

    @classmethod
    def from_json(cls, state: JsonObject) -> Breaker:
        """The breaker of ``to_json``."""
        window = tuple(Second(*second) for second in state["window"])
        probes = tuple((lease_id, expires_ms) for lease_id, expires_ms in state["probes"])
        return cls(**(state | {"window": window, "probes": probes}))


@dataclass(frozen=True, slots=True)
class Permit:
    """May a call be made now? ``lease_id`` is the call's own; asking again with it is answered alike."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Report:
    """How a permitted call ended. ``generation`` is that of its permit."""

    lease_id: str
    generation: int
    outcome: CallOutcome


BreakerOp: TypeAlias = Permit | Report


@dataclass(frozen=True, slots=True)
class BreakerResult:
    """``granted`` and ``generation`` answer a permit; when not granted, ``retry_after_ms`` says when to ask again.
    ``opened`` and ``closed`` tell what an operation changed."""

    granted: bool = True
    generation: int = 0
    retry_after_ms: int = 0
    opened: bool = False
    closed: bool = False


def apply_breaker(
    state: Breaker, op: BreakerOp, now_ms: int, *, name: str, rules: BreakerRules = BreakerRules()
) -> tuple[Breaker, BreakerResult]:
    """The circuit after ``op`` at ``now_ms`` (Unix milliseconds), and what came of it. ``name`` seeds the jitter of breaks."""
    match op:
        case Permit(lease_id):
            return _permit(state, lease_id, now_ms, rules)
        case Report(lease_id, generation, outcome):
            if generation != state.generation:
                return state, BreakerResult(granted=False, generation=state.generation)
            if state.phase == "half_open":
                return _probed(state, lease_id, outcome, now_ms, name, rules)
            return _counted(state, outcome, now_ms, name, rules)
        case _:
            assert_never(op)


def _permit(state: Breaker, lease_id: str, now_ms: int, rules: BreakerRules) -> tuple[Breaker, BreakerResult]:
    if state.phase == "closed":
        return state, BreakerResult(generation=state.generation)
    if state.phase == "open":
        wait_ms = state.until_ms - now_ms
        # A wait beyond the longest break means that the clock went back: then probing is better than waiting for it.
        if 0 < wait_ms <= rules.max_break_ms:
            return state, BreakerResult(granted=False, generation=state.generation, retry_after_ms=wait_ms)
        state = replace(
            state, phase="half_open", generation=state.generation + 1, window=(), row=0, probes=(), successes=0
        )
    return _lease(state, lease_id, now_ms, rules)


def _lease(state: Breaker, lease_id: str, now_ms: int, rules: BreakerRules) -> tuple[Breaker, BreakerResult]:
    """One of the probes of a half-open circuit, if one is free. A probe that never reported frees its place in time."""
    # Twice its time left is a clock that went far back; such a lease would outlive everything.
    live = tuple(
        (known, expires_ms) for known, expires_ms in state.probes if 0 < expires_ms - now_ms <= 2 * rules.probe_ttl_ms
    )
    state = replace(state, probes=live)
    if any(known == lease_id for known, _ in live):
        return state, BreakerResult(generation=state.generation)
    if len(live) >= rules.probes:
        first_ms = min(expires_ms for _, expires_ms in live)
        return state, BreakerResult(granted=False, generation=state.generation, retry_after_ms=first_ms - now_ms)
    leased = replace(state, probes=(*live, (lease_id, now_ms + rules.probe_ttl_ms)))
    return leased, BreakerResult(generation=state.generation)


def _probed(
    state: Breaker, lease_id: str, outcome: CallOutcome, now_ms: int, name: str, rules: BreakerRules
) -> tuple[Breaker, BreakerResult]:
    left = tuple(probe for probe in state.probes if probe[0] != lease_id)
    if len(left) == len(state.probes):
        # Reported before, or the lease has expired and somebody else may hold its place.
        return state, BreakerResult(granted=False, generation=state.generation)
    state = replace(state, probes=left)
    if outcome == "failure":
        return _open(state, now_ms, name, rules)
    if outcome != "neutral":
        state = replace(state, successes=state.successes + _WHOLE - _HALVES[outcome])
    if state.successes < rules.successes_to_close * _WHOLE:
        return state, BreakerResult(generation=state.generation)
    closed = Breaker(generation=state.generation + 1)
    return closed, BreakerResult(generation=closed.generation, closed=True)


def _counted(
    state: Breaker, outcome: CallOutcome, now_ms: int, name: str, rules: BreakerRules
) -> tuple[Breaker, BreakerResult]:
    if outcome == "neutral" or state.phase != "closed":
        return state, BreakerResult(generation=state.generation)
    failed = _HALVES[outcome]
    window = _with_call(state.window, now_ms // _MS_PER_S, failed, rules)
    state = replace(state, window=window, row=state.row + failed if failed else 0)
    calls, failures = sum(s.calls for s in window), sum(s.failures for s in window)
    is_bad = calls >= rules.min_calls * _WHOLE and failures * 100 >= calls * rules.failure_percent
    if is_bad or state.row >= rules.consecutive_failures * _WHOLE:
        return _open(state, now_ms, name, rules)
    return state, BreakerResult(generation=state.generation)


def _with_call(window: tuple[Second, ...], at_s: int, failed: int, rules: BreakerRules) -> tuple[Second, ...]:
    recent = tuple(second for second in window if abs(at_s - second.at_s) < rules.window_s)
    # A clock that went back a little counts into the latest second, so that seconds stay in order and few.
    if recent and recent[-1].at_s >= at_s:
        last = recent[-1]
        return (*recent[:-1], Second(last.at_s, last.calls + _WHOLE, last.failures + failed))
    return (*recent, Second(at_s, _WHOLE, failed))


def _open(state: Breaker, now_ms: int, name: str, rules: BreakerRules) -> tuple[Breaker, BreakerResult]:
    generation = state.generation + 1
    break_ms = break_of(name, generation, state.breaks, rules)
    opened = Breaker("open", generation, breaks=state.breaks + 1, until_ms=now_ms + break_ms)
    return opened, BreakerResult(granted=False, generation=generation, retry_after_ms=break_ms, opened=True)


def break_of(name: str, generation: int, breaks: int, rules: BreakerRules) -> int:
    """Milliseconds of a break after ``breaks`` others: doubling, capped, less up to a fifth that is derived, not drawn."""
    whole_ms = min(rules.max_break_ms, rules.first_break_ms << min(breaks, 32))
    digest = hashlib.sha256(f"{name}/{generation}".encode()).digest()
    return whole_ms - whole_ms * int.from_bytes(digest[:4], "big") // (5 * 2**32)
