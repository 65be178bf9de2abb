"""The two ways to make one request: whole, or streamed to a consumer. No retries, no bookkeeping.

A port promises not to raise for what a server does; should one do so all the same, that is a failure here and no crash.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from engine.ports.clock import Clock
from engine.ports.models import (
    ChatModels,
    FailureCode,
    ModelCall,
    ModelDelta,
    ModelFailure,
    ModelReply,
    ModelResult,
    ModelUsage,
)
from planner_graph.model_calls.answers import OnDelta, OnRestart
from planner_graph.model_calls.moves import GatewayRules
from planner_graph.model_calls.question import BYTES_PER_TOKEN, Question
from planner_graph.model_calls.replies import clean_text

_LOG = logging.getLogger("livoa.models")
_GRACE_S = 2.0
"""How much longer than asked a port may take before it is cut off from here."""


@dataclass(frozen=True, slots=True)
class Made:
    """One request that was made. ``stopped`` is our own reason for ending it early; ``text`` is what came until its end."""

    result: ModelResult
    text: str = ""
    stopped: str | None = None

    @property
    def code(self) -> str | None:
        """Why there is no usable reply, or None."""
        if self.stopped is not None:
            return self.stopped
        return self.result.code if isinstance(self.result, ModelFailure) else None


class ConsumerError(Exception):
    """What the consumer of a stream raised (``cause``), told apart from what stores and ports raise."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("the consumer of a stream failed")
        self.cause = cause


class Transport(Protocol):
    """Makes requests of one question."""

    async def make(self, call: ModelCall, traceparent: str | None) -> Made:
        """One request. Raises only ``ConsumerError``."""
        ...

    async def replay(self, text: str) -> None:
        """Hand on a reply that was kept from before."""
        ...


class Whole:
    """The whole reply at once."""

    def __init__(self, models: ChatModels) -> None:
        self._models = models

    async def make(self, call: ModelCall, traceparent: str | None) -> Made:
        """See ``Transport.make``."""
        try:
            async with asyncio.timeout(call.timeout_s + _GRACE_S):
                result = await self._models.complete(call, traceparent=traceparent)
        except TimeoutError:
            return Made(ModelFailure("model.timeout", "no reply in time", retryable=True, latency_s=call.timeout_s))
        except Exception as err:
            _report_raised(err)
            return Made(ModelFailure("model.unavailable", "the call raised", retryable=True))
        return Made(result, result.text if isinstance(result, ModelReply) else "")

    async def replay(self, text: str) -> None:
        """Nobody waits for pieces."""


class Streamed:
    """Pieces as they come. Ends a stream that writes more than it may, or writes on past the deadline."""

    def __init__(
        self,
        models: ChatModels,
        question: Question,
        clock: Clock,
        rules: GatewayRules,
        on_delta: OnDelta,
        on_restart: OnRestart,
    ) -> None:
        self._models, self._question, self._clock, self._rules = models, question, clock, rules
        self._on_delta, self._on_restart = on_delta, on_restart
        self._void: str | None = None
        """Why pieces that were handed on no longer count, until the consumer is told."""
        self._pieces: list[str] = []
        self._size_bytes = 0

    async def make(self, call: ModelCall, traceparent: str | None) -> Made:
        """See ``Transport.make``."""
        await self._begin()
        made = await self._read(call, traceparent)
        if self._pieces:
            self._void = made.code or "answer.superseded"
        return made

    async def replay(self, text: str) -> None:
        """See ``Transport.replay``. What was streamed before is void, unless it is this very text."""
        if "".join(self._pieces) != text:
            await self._begin()
            await self._hand_on(text)

    async def _begin(self) -> None:
        self._pieces, self._size_bytes = [], 0
        if self._void is not None:
            reason, self._void = self._void, None
            await _told(self._on_restart, reason)

    async def _hand_on(self, text: str) -> None:
        self._pieces.append(text)
        self._size_bytes += len(text.encode())
        await _told(self._on_delta, text)

    async def _read(self, call: ModelCall, traceparent: str | None) -> Made:
        most_bytes = call.max_output_tokens * self._rules.stream_bytes_per_token
        ends_at_s = asyncio.get_running_loop().time() + call.timeout_s + _GRACE_S
        stream = self._models.stream(call, traceparent=traceparent)
        try:
            while True:
                piece = await self._next(stream, ends_at_s)
                if not isinstance(piece, ModelDelta):
                    return Made(piece, "".join(self._pieces))
                if self._size_bytes + len(piece.text) > most_bytes:
                    return Made(self._spent("model.invalid_output"), "".join(self._pieces), "model.over_budget")
                if self._clock.now() >= self._question.site.deadline_at:
                    return Made(self._spent("model.timeout"), "".join(self._pieces), "model.deadline")
                await self._hand_on(clean_text(piece.text))
        finally:
            await _close(stream)

    async def _next(
        self, stream: AsyncIterator[ModelDelta | ModelResult], ends_at_s: float
    ) -> ModelDelta | ModelResult:
        try:
            async with asyncio.timeout_at(ends_at_s):
                return await anext(stream)
        except StopAsyncIteration:
            return self._spent("model.unavailable", retryable=True)
        except TimeoutError:
            return self._spent("model.timeout", retryable=True)
        except Exception as err:
            _report_raised(err)
            return self._spent("model.unavailable", retryable=True)

    def _spent(self, code: FailureCode, *, retryable: bool = False) -> ModelFailure:
        """A stream that ended without saying what it used."""
        usage = ModelUsage(self._question.input_tokens, -(-self._size_bytes // BYTES_PER_TOKEN), estimated=True)
        return ModelFailure(code, "the stream ended before its end", retryable, usage=usage)


async def _told(consumer: OnDelta, text: str) -> None:
    try:
        await consumer(text)
    except Exception as err:
        raise ConsumerError(err) from err


async def _close(stream: AsyncIterator[ModelDelta | ModelResult]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        try:
            await close()
        except Exception as err:
            _report_raised(err)


def _report_raised(err: Exception) -> None:
    """The words of an exception stay out: they may be the provider's."""
    _LOG.error("a model port raised %s", type(err).__name__)
