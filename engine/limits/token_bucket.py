"""A token bucket as a pure reducer: a rate with a burst. Integers only, so that no rounding lets anything through."""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.base import JsonObject

_MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class BucketRules:
    """``rate`` permits flow in every ``period_s`` seconds, evenly, up to ``burst``. All at least 1."""

    rate: int
    burst: int
    period_s: int = 1

    def __post_init__(self) -> None:
        if self.rate < 1 or self.burst < 1 or self.period_s < 1:
            raise ValueError("a token bucket needs a rate, a burst and a period of at least 1")

    @property
    def unit(self) -> int:
        """What one permit is in a bucket: so large that every millisecond adds a whole number."""
        return self.period_s * _MS_PER_S


@dataclass(frozen=True, slots=True)
class Bucket:
    """Permits left, in fractions of ``BucketRules.unit`` (one millisecond adds ``rate`` of them), as of ``at_ms``."""

    left: int
    at_ms: int

    @classmethod
    def full(cls, rules: BucketRules, now_ms: int) -> Bucket:
        """A bucket that nobody has drawn from."""
        return cls(rules.burst * rules.unit, now_ms)

    def to_json(self) -> JsonObject:
        """JSON with integers only."""
        return {"left": self.left, "at_ms": self.at_ms}

    @classmethod
    def from_json(cls, state: JsonObject) -> Bucket:
        """The bucket of ``to_json``."""
        return cls(state["left"], state["at_ms"])


@dataclass(frozen=True, slots=True)
class Drawn:
    """Whether the permits were granted; when not, after how many milliseconds they would be. None: never, beyond the burst."""

    granted: bool
    retry_after_ms: int | None = 0


def draw(state: Bucket, permits: int, now_ms: int, rules: BucketRules) -> tuple[Bucket, Drawn]:
    """Take ``permits`` at once or not at all. A clock that goes back adds nothing. ``ValueError`` below 1 permit."""
    if permits < 1:
        raise ValueError("at least one permit is drawn")
    state = _filled(state, now_ms, rules)
    asked = permits * rules.unit
    if asked <= state.left:
        return Bucket(state.left - asked, state.at_ms), Drawn(True)
    if permits > rules.burst:
        return state, Drawn(False, None)
    return state, Drawn(False, -(-(asked - state.left) // rules.rate))


def draw_up_to(state: Bucket, permits: int, now_ms: int, rules: BucketRules) -> tuple[Bucket, int, int]:
    """Take as many of ``permits`` as there are: the bucket, how many, and after how many ms there would be one when it is none.

    ``ValueError`` below 1 permit.
    """
    if permits < 1:
        raise ValueError("at least one permit is drawn")
    state = _filled(state, now_ms, rules)
    taken = min(permits, state.left // rules.unit)
    if taken == 0:
        return state, 0, -(-(rules.unit - state.left) // rules.rate)
    return Bucket(state.left - taken * rules.unit, state.at_ms), taken, 0


def _filled(state: Bucket, now_ms: int, rules: BucketRules) -> Bucket:
    """The bucket at ``now_ms``, never fuller than the burst, which may have been lowered since it was filled."""
    elapsed_ms = max(0, now_ms - state.at_ms)
    left = min(rules.burst * rules.unit, state.left + elapsed_ms * rules.rate)
    return Bucket(left, max(now_ms, state.at_ms))
