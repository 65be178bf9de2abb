"""The adversary: everything that may go wrong in one run, drawn from its seed.

A seed first picks which families of faults take part, so that some seeds are calm and some are all of it at once. What an
agent does to one call hangs on the call's key, not on the order of calls. Time is virtual; nothing here sleeps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from engine.domain.errors import LivoaError

Fate = Literal["ok", "slow", "unreachable", "busy", "refused", "lost", "malformed"]
FAMILIES = (
    "agent",
    "crash",
    "blips",
    "outage",
    "duplicates",
    "audit",
    "cancel",
    "revoke",
    "deadline",
    "budget",
    "long",
)

SHARES = {"agent": 0.75, "cancel": 0.2, "deadline": 0.15, "long": 0.15}
"""How many seeds a family takes part in; 0.35 where nothing is said."""


TWISTS = {
    "people": 0.3,
    "undo": 0.35,
    "hold": 0.25,
    "fallback": 0.25,
    "terminate": 0.07,
    "rolls": 0.6,
    "repair": 0.35,
    "clock": 0.6,
}
"""The same for what came later: drawn apart, so that the others stay what they were."""

JUMPS_S = (60, 900, 2 * 3_600, 4 * 3_600)
"""By about how much the clock is set forwards or back."""


@dataclass(frozen=True, slots=True)
class Outage:
    """One store that answers 503 for a while."""

    store: str
    from_at: datetime
    to_at: datetime


@dataclass(slots=True)
class Adversary:
    """Decisions of one seed."""

    seed: int
    start_at: datetime
    families: frozenset[str] = field(init=False)
    chance: random.Random = field(init=False)
    clock_chance: random.Random = field(init=False)
    crashes_left: int = field(init=False, default=0)
    jumps_left: int = field(init=False, default=0)
    outages: tuple[Outage, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        twists = random.Random(f"families/{self.seed}")
        self.chance = random.Random(f"adversary/{self.seed}")
        chance = self.chance
        self.families = frozenset(name for name in FAMILIES if chance.random() < SHARES.get(name, 0.35))
        self.families |= {name for name, share in TWISTS.items() if twists.random() < share}
        self.clock_chance = random.Random(f"clock/{self.seed}")
        if "clock" in self.families:
            self.jumps_left = self.clock_chance.randint(2, 7)
        if "crash" in self.families:
            self.crashes_left = chance.randint(1, 6)
        if "outage" in self.families:
            self.outages = tuple(self._outage() for _ in range(chance.randint(1, 4)))

    def _outage(self) -> Outage:
        from_at = self.start_at + timedelta(seconds=self.chance.choice((0, self.chance.uniform(0, 60))))
        store = self.chance.choice(("runs", "events", "payloads", "audit", "budgets", "tenants"))
        return Outage(store, from_at, from_at + timedelta(seconds=self.chance.uniform(1, 25)))

    @property
    def roll_after(self) -> int | None:
        """How little a history of the run takes in; None for as much as it does in earnest."""
        return random.Random(f"rolls/{self.seed}").choice((1, 2, 3, 5, 8, 13)) if self.has("rolls") else None

    @property
    def history(self) -> dict[str, int]:
        """What the start document of a run says of its histories: how little one takes in, and how long one holds steps back.

        Calls are expected to take one second or three: all are short enough to be waited for, or some, or none.
        """
        if (roll_after := self.roll_after) is None:
            return {}
        hold_ms = random.Random(f"holds/{self.seed}").choice((0, 0, 2_500, 6_000, 60_000))
        return {"roll_after": roll_after, "hold_ms": hold_ms}

    def has(self, family: str) -> bool:
        """True when this family takes part."""
        return family in self.families

    @property
    def is_store_trouble(self) -> bool:
        """True when a store may refuse, or lose its answer."""
        return bool(self.families & {"blips", "outage", "audit"})

    def yields(self) -> int:
        """How often the loop goes round before the next step, which decides who overtakes whom."""
        return self.chance.choice((0, 0, 1, 2))

    def crashes_here(self) -> bool:
        """True when the host dies now."""
        if self.crashes_left and self.chance.random() < 0.012:
            self.crashes_left -= 1
            return True
        return False

    def crashes_at_commit(self) -> Literal["no", "before", "after"]:
        """When the host dies around this commit of the durable engine."""
        if self.crashes_left and self.chance.random() < 0.02:
            self.crashes_left -= 1
            return "before" if self.chance.random() < 0.5 else "after"
        return "no"

    def jumps_here_s(self, probability: float) -> float:
        """By how much the clock is set now, forwards or (negative) back; mostly not at all."""
        chance = self.clock_chance
        if not self.jumps_left or chance.random() >= probability:
            return 0.0
        self.jumps_left -= 1
        return chance.choice((1, -1, -1)) * chance.choice(JUMPS_S) * chance.uniform(0.5, 1.5)

    def refusal(self, store: str, now: datetime) -> Exception | None:
        """The exception a store answers with before it does anything."""
        if any(outage.store == store and outage.from_at <= now < outage.to_at for outage in self.outages):
            return LivoaError("store.unavailable", "down", status=503)
        if store == "audit" and "audit" in self.families and self.chance.random() < 0.06:
            return self.chance.choice((OSError("disk full"), LivoaError("store.unavailable", "no", status=503)))
        if "blips" in self.families and self.chance.random() < 0.008:
            return LivoaError("store.busy", "busy", status=503)
        return None

    def loses_answer(self, store: str) -> bool:
        """True when a store did it and its caller is told that it did not."""
        return "blips" in self.families and self.chance.random() < 0.008

    def delivery(self) -> Literal["once", "twice", "late"]:
        """How often an activity is delivered: once, twice at the same time, or again long after."""
        if "duplicates" not in self.families:
            return "once"
        return self.chance.choices(("once", "twice", "late"), (6, 2, 2))[0]  # type: ignore[return-value]  # the literals above

    def stall_s(self) -> float:
        """How long a delivery that nobody waits for any more stands still at this place, as a paused process does."""
        return self.chance.uniform(0.1, 10) if self.chance.random() < 0.06 else 0.0

    def fate(self, key: str, nth: int, *, is_frail: bool = False) -> tuple[Fate, random.Random]:
        """What becomes of the ``nth`` call under one key, and a source of details for it."""
        details = random.Random(f"agent/{self.seed}/{key}/{nth}")
        if "agent" not in self.families:
            return "ok", details
        fates: tuple[Fate, ...] = ("ok", "slow", "unreachable", "busy", "refused", "lost", "malformed")
        weights = (10, 2, 8, 4, 8, 2, 2) if is_frail else (240, 4, 12, 6, 4, 8, 3)
        return details.choices(fates, weights)[0], details
