"""A token bucket as a pure reducer: a rate with a burst. Integers only, so that no rounding lets anything through."""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.base import JsonObject

_MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class BucketRules:
    """``per_s`` permits flow in every second, up to ``burst``. Both at least 1."""

    per_s: int
    burst: int

    def __post_init__(self) -> None:
        if self.per_s < 1 or self.burst < 1:
            raise ValueError("a token bucket needs a rate and a burst of at least 1")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Permits left, in thousandths (one millisecond adds ``per_s`` of them), as of ``at_ms``."""

    left_milli: int
    at_ms: int

    @classmethod
    def full(cls, rules: BucketRules, now_ms: int) -> Bucket:
        """A bucket that nobody has drawn from."""
        return cls(rules.burst * _MS_PER_S, now_ms)

    def to_json(self) -> JsonObject:
        """JSON with integers only."""
        return {"left_milli": self.left_milli, "at_ms": self.at_ms}

    @classmethod
    def from_json(cls, state: JsonObject) -> Bucket:
        """The bucket of ``to_json``."""
        return cls(state["left_milli"], state["at_ms"])


@dataclass(frozen=True, slots=True)
class Drawn:
    """Whether the permits were granted; when not, after how many milliseconds they would be. None: never, beyond the burst."""

    granted: bool
    retry_after_ms: int | None = 0


def draw(state: Bucket, permits: int, now_ms: int, rules: BucketRules) -> tuple[Bucket, Drawn]:
    """Take ``permits`` at once or not at all. A clock that goes back adds nothing. ``ValueError`` below 1 permit."""
    if permits < 1:
        raise ValueError("at least one permit is drawn")
    elapsed_ms = max(0, now_ms - state.at_ms)
    left = min(rules.burst * _MS_PER_S, state.left_milli + elapsed_ms * rules.per_s)
    at_ms = max(now_ms, state.at_ms)
    asked = permits * _MS_PER_S
    if asked <= left:
        return Bucket(left - asked, at_ms), Drawn(True)
    if permits > rules.burst:
        return Bucket(left, at_ms), Drawn(False, None)
    return Bucket(left, at_ms), Drawn(False, -(-(asked - left) // rules.per_s))
