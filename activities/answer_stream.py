"""The text of an answer on its way into the event log: pieces are gathered for a moment, numbered, and tied to one writing.

A writing (``answer_attempt``) belongs to one delivery of the activity alone: it is claimed by the event that opens it, and the
keys of its pieces carry its number. So a second delivery cannot mix its words with the first one's; it begins anew, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib

from engine.domain.errors import LivoaError
from engine.domain.events import AnswerEventData, EventType, new_event
from engine.domain.run import Run
from engine.ports.run_store import EventLog

GATHER_S = 0.08
"""How long pieces are gathered before they are one event: a reader sees a steady flow, the log few rows."""
MAX_DELTA_CHARS = 4_000
MAX_WRITINGS = 30


class AnswerStream:
    """Implements the ``AnswerSink`` port on the event log of one run."""

    def __init__(self, run: Run, events: EventLog) -> None:
        self._run = run
        self._events = events
        self._attempt = 0
        self._index = 0
        self._held = ""
        self._lock = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Claim the first writing that nobody has claimed."""
        await self._claim("answer.redelivered")

    async def write(self, text: str) -> None:
        """Add a piece. Raises what appending an earlier one raised."""
        if self._timer is not None and self._timer.done():
            timer, self._timer = self._timer, None
            timer.result()
        self._held += text
        if len(self._held) >= MAX_DELTA_CHARS:
            await self._flush()
        elif self._timer is None and self._held:
            self._timer = asyncio.create_task(self._flush_later())

    async def restart(self, reason: str) -> None:
        """Begin anew: what was written stands in the log, and does not count."""
        await self.close(flush=False)
        await self._claim(reason)

    async def close(self, *, flush: bool = True) -> None:
        """Write what is held (or drop it) and stop the timer."""
        if not flush:
            self._held = ""
        timer, self._timer = self._timer, None
        if timer is not None:
            # Never cancelled: a piece on its way to the log would leave a gap.
            self._hurry.set()
            (result,) = await asyncio.gather(timer, return_exceptions=True)
            self._hurry.clear()
            if flush and isinstance(result, BaseException):
                raise result
        await self._flush()

    async def _claim(self, reason: str) -> None:
        while self._attempt < MAX_WRITINGS:
            self._attempt += 1
            first = self._attempt == 1
            data = AnswerEventData(answer_attempt=self._attempt, code=None if first else reason)
            kind = EventType.ANSWER_STARTED if first else EventType.ANSWER_RESTARTED
            event = new_event(kind, data, None if first else f"{kind.value}/{self._attempt}")
            self._index = 0
            if await self._events.append(self._run.tenant_id, self._run.run_id, [event]):
                return
        raise LivoaError("answer.too_many_writings", "the answer was begun too often", status=409)

    async def _flush_later(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._hurry.wait()
        await self._flush()

    async def _flush(self) -> None:
        async with self._lock:
            text, self._held = self._held, ""
            if not text:
                return
            data = AnswerEventData(text=text, index=self._index, answer_attempt=self._attempt)
            key = f"answer.delta/{self._attempt}/{self._index}"
            self._index += 1
            await self._events.append(
                self._run.tenant_id, self._run.run_id, [new_event(EventType.ANSWER_DELTA, data, key)]
            )
