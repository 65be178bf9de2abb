"""How many durable actions an execution has taken, counted from its history.

An action is what costs a message between the engine and the app in Azure and a row here: an activity (a durable HTTP call is
one), a timer, cancelled or not, a sub-orchestration, an entity call or signal. Waiting for an event is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from local_host.durable.history import Event, EventSent, SubCreated, TaskScheduled, TimerCreated


@dataclass(frozen=True, slots=True)
class Actions:
    """Counts by kind."""

    activities: int = 0
    timers: int = 0
    sub_orchestrations: int = 0
    entity_messages: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.activities + self.timers + self.sub_orchestrations + self.entity_messages


def actions_in(events: Iterable[Event]) -> Actions:
    """The actions of a history."""
    kinds = [type(event) for event in events]
    return Actions(*(kinds.count(kind) for kind in (TaskScheduled, TimerCreated, SubCreated, EventSent)))
