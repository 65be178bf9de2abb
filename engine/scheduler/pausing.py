"""A suspended run from the scheduler's side: what has begun ends, nothing starts, and everything goes on where it was.

The store is the truth. A call that finds the run suspended answers so without having done anything, unless it is about what ended
elsewhere: then it says how. From then on its board (or the run itself, while it plans or composes) issues nothing. It looks again
when the resumption is announced, and by itself after a while, in case the announcement was lost. Suspensions are numbered, so
that no announcement can be taken for another.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

WATCHDOG = timedelta(minutes=5)
"""How soon somebody who waits for people looks by itself, in case the announcement of the answer was lost."""
LATER_WATCHDOG = timedelta(hours=1)
EARLY_LOOKS = 12
"""From this look on the watchdog rings less often: what has taken an hour may take days, and every look is history."""


def watchdog(look: int) -> timedelta:
    """How long to wait for an announcement before look number ``look`` (from 1)."""
    return WATCHDOG if look <= EARLY_LOOKS else LATER_WATCHDOG


class Pause(NamedTuple):
    """What is known of suspensions. ``number`` is the one told of last and ``looks`` how often it was found in force; ``look_at``
    is when to look again, and set exactly while nothing may start. ``listening``: the end of ``number`` will be announced.
    ``resumed`` is the last one whose end was announced."""

    number: int = 0
    looks: int = 0
    look_at: datetime | None = None
    listening: bool = False
    resumed: int = 0

    @property
    def holds(self) -> bool:
        """True while nothing may start."""
        return self.look_at is not None

    @property
    def must_listen(self) -> bool:
        """True when the announcement is still to be asked for."""
        return self.holds and not self.listening

    def told(self, number: int, at: datetime) -> Pause:
        """A call found suspension ``number`` in force. One whose end is known already, by its announcement or by a later one, was
        found by a call that came too early: it is made again at once."""
        if number <= self.resumed or number < self.number or (self.holds and number == self.number):
            return self
        known = number == self.number
        looks = self.looks + 1 if known else 1
        return Pause(number, looks, at + watchdog(looks), known and self.listening, self.resumed)

    def listened(self, number: int) -> Pause:
        """The announcement was asked for."""
        return self._replace(listening=True) if number == self.number else self

    def ended(self, number: int) -> Pause:
        """The end of suspension ``number`` was announced."""
        look_at = None if number >= self.number else self.look_at
        return self._replace(resumed=max(self.resumed, number), look_at=look_at)

    def lifted(self) -> Pause:
        """Nobody is held any more, or somebody else will be: what was asked for and announced stays known."""
        return self._replace(look_at=None)

    def rung(self, at: datetime) -> Pause:
        """The time is ``at``; perhaps it is time to look."""
        return self._replace(look_at=None) if self.look_at is not None and self.look_at <= at else self


NO_PAUSE = Pause()
"""Nothing is known of any suspension."""
