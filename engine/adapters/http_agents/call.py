"""One call of an agent from the first request to its result: answered at once, accepted and asked for, or streamed.

No address comes from the agent: the execution's follows from the request, so no answer can lead the caller elsewhere or to
another run's execution.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard

from engine.adapters.http_agents.answers import (
    RawAnswer,
    failed,
    interpret,
    interpret_update,
    read_update,
    retry_after_s,
)
from engine.adapters.http_agents.exchange import SILENT, Exchange, LineSink
from engine.adapters.http_agents.papers import Papers
from engine.domain.egress import EgressRefusedError
from engine.domain.execute import (
    NDJSON,
    ExecuteFailed,
    ExecuteProgress,
    ExecuteRequest,
    ExecuteResponse,
    ExecuteRunning,
    ExecuteSucceeded,
    ExecuteUpdate,
    execution_id,
)
from engine.ports.invoker import ProgressSink

_MAX_IN_FLIGHT_PAUSE_S = 2.0
"""The agent says when its lease ends at the latest; most calls are over long before."""
_MAX_TROUBLES = 5
"""How often in a row asking for an execution may fail before the call is given up: it is not the execution that fails."""
_ASK_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds. ``in_flight_s`` before a call that is in flight elsewhere is asked for again; ``poll_s`` before an accepted one is
    asked for, growing to ``max_poll_s``. ``wait_s``: how long an agent should hold a call before it answers 202. ``silence_s``:
    for how much longer nothing may come before the execution is asked for."""

    in_flight_s: float = 0.5
    poll_s: float = 0.5
    max_poll_s: float = 5.0
    wait_s: int = 20
    silence_s: float = 40.0


@dataclass(slots=True)
class AgentCall:
    """A call under way. ``give_up_at`` is on the loop's clock; the caller bounds the whole by it. ``refused`` is told of what the
    egress guard did not let through, by its code."""

    exchange: Exchange
    url: str
    request: ExecuteRequest
    body: bytes
    papers: Papers
    pauses: Pauses
    give_up_at: float
    traceparent: str | None
    progress: ProgressSink | None
    refused: Callable[[str], Awaitable[None]]
    sent: bool = False

    async def result(self) -> ExecuteResponse:
        """The result, asked for until the call is no longer in flight for somebody else.

        That somebody is an earlier delivery of this very step, perhaps of a host that died: its success is ours too. Taking the
        409 for a failure would write a step off, for good where it may be tried once only, whose effect is under way.
        """
        while True:
            response = await self._post()
            if not _in_flight(response):
                return response
            joined = await self._follow(in_flight=response)
            if isinstance(joined, ExecuteSucceeded):
                return joined
            asked_s = min(response.error.retry_after_s or 0.0, _MAX_IN_FLIGHT_PAUSE_S)
            if not await self._pause(max(self.pauses.in_flight_s, asked_s)):
                return response

    async def cancel(self) -> None:
        """Ask the agent to stop, when anything has been sent. What becomes of it is the agent's to say."""
        if self.sent:
            await self._send("DELETE", self._execution_url(), await self._headers())

    def _id(self) -> str:
        return execution_id(self.request.tenant_id, self.request.idempotency_key)

    def _execution_url(self) -> str:
        return f"{self.url}/executions/{self._id()}"

    async def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json, application/problem+json", "Accept-Encoding": "identity"}
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent
        return headers | await self.papers.headers()

    async def _post(self) -> ExecuteResponse:
        headers = await self._headers() | {
            "Content-Type": "application/json",
            "Accept": f"application/json, {NDJSON}, application/problem+json",
            "Prefer": f"respond-async, wait={self.pauses.wait_s}",
            "Idempotency-Key": self.request.idempotency_key,
        }
        self.sent = True
        stream = _Stream(self._own, self._told)
        answer = await self._send(
            "POST",
            f"{self.url}/execute",
            headers,
            body=self.body,
            lines=stream.take,
            silence_s=self.pauses.wait_s + self.pauses.silence_s,
        )
        if stream.result is not None:
            return stream.result
        if isinstance(answer, ExecuteFailed):
            # Where the connection broke off or went dead the execution may well go on.
            goes_on = answer.error.code == SILENT or (stream.begun and answer.error.retryable)
            return await self._follow() if goes_on else answer
        if stream.begun:
            return await self._follow()
        if answer.status != 202:
            return interpret(answer)
        accepted = self._own(interpret_update(answer))
        return await self._follow() if isinstance(accepted, ExecuteRunning) else accepted

    async def _follow(self, *, in_flight: ExecuteFailed | None = None) -> ExecuteResponse:
        """Ask for the execution until it has ended.

        With ``in_flight`` it is somebody else's, and that is the answer as soon as asking does not help.
        """
        pause_s, troubles = self.pauses.poll_s, 0
        while True:
            answer = await self._ask()
            found = answer if isinstance(answer, ExecuteFailed) else self._own(interpret_update(answer))
            if isinstance(found, ExecuteRunning):
                troubles = 0
                await self._told(found.progress)
            elif isinstance(answer, RawAnswer) and answer.status in (200, 202):
                return found
            elif in_flight is not None:
                return in_flight
            elif isinstance(answer, RawAnswer) and answer.status == 404:
                return failed("agent.execution_lost", "The agent no longer knows of the execution.", retryable=True)
            elif isinstance(found, ExecuteFailed) and (not found.error.retryable or troubles == _MAX_TROUBLES):
                return found
            else:
                troubles += 1
            asked_s = retry_after_s(answer.headers.get("retry-after", "")) if isinstance(answer, RawAnswer) else None
            if not await self._pause(min(max(pause_s, asked_s or 0.0), self.pauses.max_poll_s)) and in_flight:
                return in_flight
            pause_s = min(pause_s * 1.5, self.pauses.max_poll_s)

    async def _ask(self) -> RawAnswer | ExecuteFailed:
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                return await self._send("GET", self._execution_url(), await self._headers())
        except TimeoutError:
            return failed("agent.unreachable", "The agent does not tell of the execution.", retryable=True)

    async def _send(
        self,
        method: Literal["GET", "POST", "DELETE"],
        url: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        lines: LineSink | None = None,
        silence_s: float | None = None,
    ) -> RawAnswer | ExecuteFailed:
        """One exchange. What the guard does not let through, and a redirect that is not followed, is told first."""
        try:
            answer = await self.exchange.send(method, url, headers, body=body, lines=lines, silence_s=silence_s)
        except EgressRefusedError as error:
            await self.refused(error.code)
            return failed("agent.not_allowed", f"The agent's address must not be called: {error.code}.")
        if isinstance(answer, RawAnswer) and 300 <= answer.status < 400:
            await self.refused("egress.redirect")
        return answer

    async def _pause(self, pause_s: float) -> bool:
        """False, and no pause, when there would be no time left after it."""
        if asyncio.get_running_loop().time() + pause_s >= self.give_up_at:
            return False
        await asyncio.sleep(pause_s)
        return True

    def _own(self, update: ExecuteUpdate) -> ExecuteUpdate:
        if isinstance(update, ExecuteRunning) and update.execution_id != self._id():
            return failed("agent.contract_violation", "The agent tells of another execution.")
        return update

    async def _told(self, progress: ExecuteProgress | None) -> None:
        if progress is not None and self.progress is not None:
            await self.progress(progress)


class _Stream:
    """The lines of a streamed answer: progress, and the result, after which nothing counts."""

    def __init__(
        self,
        own: Callable[[ExecuteUpdate], ExecuteUpdate],
        told: Callable[[ExecuteProgress | None], Awaitable[None]],
    ) -> None:
        self._own, self._told = own, told
        self.begun = False
        self.result: ExecuteResponse | None = None

    async def take(self, line: bytes) -> bool:
        """See ``LineSink``."""
        self.begun = True
        update = self._own(read_update(line))
        if isinstance(update, ExecuteRunning):
            await self._told(update.progress)
            return False
        self.result = update
        return True


def _in_flight(response: ExecuteResponse) -> TypeGuard[ExecuteFailed]:
    return isinstance(response, ExecuteFailed) and response.error.code == "agent.conflict"
