"""Progress of a call, told to the run's event log: seldom, boundedly often, and never in the way of the call."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from engine.domain.errors import LivoaError
from engine.domain.events import EventType, StepEventData, new_event
from engine.domain.execute import ExecuteProgress
from engine.domain.masking import mask
from engine.ports.deps import Deps
from engine.step_runner.task import StepTask

_LOG = logging.getLogger("livoa.steps")

MIN_INTERVAL = timedelta(seconds=1)
MAX_WORDS = 100
"""Events of one attempt that only say words. With a fraction there is one for each percent."""


class ProgressReporter:
    """A ``ProgressSink`` for one attempt. A repeated delivery repeats none of its events: percent or number are their key."""

    def __init__(self, task: StepTask, capability: str, deps: Deps) -> None:
        self._task, self._capability, self._deps = task, capability, deps
        self._next_at: datetime | None = None
        self._percent = -1
        self._words = 0

    async def __call__(self, progress: ExecuteProgress) -> None:
        """Tell it, unless the last was told just now or this says nothing new."""
        now = self._deps.clock.now()
        if self._next_at is not None and timedelta() < self._next_at - now <= MIN_INTERVAL:
            return
        mark = self._mark(progress)
        if mark is None:
            return
        self._next_at = now + MIN_INTERVAL
        data = StepEventData(
            step_id=self._task.record_id,
            attempt=self._task.attempt,
            item=self._task.item,
            capability=self._capability,
            message=mask(_plain(progress.message)) or None,
            progress=progress.fraction,
        )
        event = new_event(EventType.STEP_PROGRESSED, data, f"step.progressed/{self._task.attempt_key}/{mark}")
        try:
            await self._deps.events.append(self._task.tenant_id, self._task.run_id, [event])
        except LivoaError as err:
            _LOG.warning("progress could not be told", extra={"run_id": self._task.run_id, "code": err.code})

    def _mark(self, progress: ExecuteProgress) -> str | None:
        """What makes the event another one than those before; None when it is not."""
        if progress.fraction is not None:
            percent = int(progress.fraction * 100)
            if percent <= self._percent:
                return None
            self._percent = percent
            return str(percent)
        if not progress.message or self._words >= MAX_WORDS:
            return None
        self._words += 1
        return f"words-{self._words}"


def _plain(text: str) -> str:
    """The agent's words without anything that moves a cursor or breaks a line."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
