"""Executions: claim a key, run the capability within the deadline, keep what came of it, tell how far it is, stop it.

An execution is not a request. It goes on when its caller goes away, is found again by its id, and keeps its claim and its slot
until it has ended. Work that cannot be stopped at the deadline goes on to its end, and its success is there for the retry. Leases
are short and renewed while the work lasts, so a crash blocks nobody for long. What was cut off in the middle, by its deadline, a
stop or a crash, is begun again only where its manifest says that it may be (ADR 0014).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, assert_never

from agent_kit.agent import Registered, StepContext
from agent_kit.idempotency import Claimed, IdempotencyStore, InFlight, Mismatch, Replayed
from agent_kit.perform import failed, perform, result_unknown
from agent_kit.problems import RefusedError
from engine.domain.capability import Capability
from engine.domain.execute import (
    ExecuteFailed,
    ExecuteRequest,
    ExecuteResponse,
    ExecuteRunning,
    ExecuteSucceeded,
    execution_id,
)
from engine.domain.grants import Grant, request_sha256

_LOG = logging.getLogger("agent_kit")
LEASE_S = 15.0
_RENEW_EVERY_S = 5.0
_BUSY_RETRY_S = 1.0
_MAX_IN_FLIGHT_WAIT_S = 30.0
_STOP_WAIT_S = 2.0
"""How long a caller who asks to stop is kept waiting for it."""
_CUT_WAIT_S = 1.0
"""What is cut off at its deadline has so long to end before its caller is told."""
_AFTER_COMPUTE_S = 5.0
"""Work that could not be stopped at the deadline has so long, once it is over, to become an answer."""
_TOLD_EVERY_S = 0.25
"""A stream says at most so often how far the execution is: who works in small steps does not flood its caller."""
_SILENCE_S = 10.0
"""A stream says that the execution goes on at least this often."""

Reason = Literal["deadline", "cancelled", "draining"]
_ENDED = {
    "deadline": failed("agent.deadline", "The deadline passed.", retryable=True),
    "cancelled": failed("agent.cancelled", "The execution was cancelled."),
    "draining": failed("agent.interrupted", "The agent was shut down.", retryable=True),
}
_CRASHED = "The agent ended in the middle of it."


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes to answer 200 with; ``replayed`` says that an earlier execution made them."""

    body: bytes
    replayed: bool = False


@dataclass(slots=True)
class Running:
    """An execution under way in this process. ``until`` is its deadline on the loop's clock."""

    registered: Registered
    context: StepContext
    token: str
    until: float
    attempt: int
    """The latest that asked for it: an earlier one may no longer stop it."""
    task: asyncio.Task[bytes] | None = None
    is_under_way: bool = False
    """Whether its task has taken its first step: one that is cancelled before that settles nothing."""
    outlasting: set[asyncio.Future[Any]] = field(default_factory=set)
    """Work that could not be stopped when it should have been: when it is over, the execution is asked again to stop."""
    stopped: Reason | None = None
    cut_by: Reason | None = None
    """Set when being stopped is what ended it."""
    is_concluded: bool = False
    """Whether its end is the last word under its key."""

    @property
    def place(self) -> tuple[str, str]:
        """Tenant and key."""
        return self.context.request.tenant_id, self.context.request.idempotency_key

    def update(self) -> bytes:
        """That it goes on, and how far it is."""
        return _running(*self.place, self.context)

    def stop(self, reason: Reason) -> None:
        """Stop it, or what follows work that cannot be stopped and is going on."""
        self.stopped = self.stopped or reason
        self.context.cancelled = self.context.cancelled or reason != "deadline"
        self.context.overdue = self.context.overdue or reason == "deadline"
        self.context.interrupted = self.context.interrupted or self.stopped == "draining"
        if self.task is None or not self.is_under_way:
            return
        for work in self.context.pending - self.outlasting:
            self.outlasting.add(work)
            work.add_done_callback(lambda done: done.get_loop().call_later(_AFTER_COMPUTE_S, self.stop, reason))
        if not self.context.pending:
            self.task.cancel()


def _cut_off(running: Running, reason: Reason) -> ExecuteFailed:
    """The end of an execution that was stopped before it ended by itself."""
    running.cut_by, ended = reason, _ENDED[reason]
    if reason == "cancelled" or not running.context.begun:
        return ended
    return result_unknown(running.registered.manifest, ended.error.message, otherwise=ended.error.code)


def _is_last_word(running: Running, response: ExecuteResponse) -> bool:
    """Whether the key must not begin the call again: it succeeded, or may have had its effect and is not safe to repeat."""
    if isinstance(response, ExecuteSucceeded):
        return True
    # Nobody wants what was cancelled any more, so no attempt waits for its key.
    may_repeat = running.registered.manifest.is_repeatable and running.cut_by != "cancelled"
    return running.context.begun and not may_repeat


def _if_lost(manifest: Capability) -> bytes | None:
    """What the key answers when the process dies in the middle; None where the call may be begun again."""
    if manifest.is_repeatable:
        return None
    return result_unknown(manifest, _CRASHED, otherwise="agent.interrupted").model_dump_json().encode()


def _running(tenant_id: str, key: str, context: StepContext | None = None) -> bytes:
    progress = context.latest if context is not None else None
    return ExecuteRunning(execution_id=execution_id(tenant_id, key), progress=progress).model_dump_json().encode()


def _deadline_passed() -> RefusedError:
    return RefusedError(408, "agent.deadline", "The deadline has passed.", retryable=True)


def _in_flight(wait_s: float) -> RefusedError:
    return RefusedError(
        409, "agent.in_flight", "The same call is being executed.", retryable=True, retry_after_s=wait_s
    )


def _unknown() -> RefusedError:
    return RefusedError(404, "agent.no_execution", "There is no execution of this id.")


@dataclass(slots=True)
class Executions:
    """All executions of one agent process. ``slots`` caps how many run at once."""

    store: IdempotencyStore
    executor: Executor
    now: Callable[[], datetime]
    slots: int
    running: dict[tuple[str, str], Running] = field(default_factory=dict)

    def begin(self, registered: Registered, request: ExecuteRequest, *, traceparent: str | None) -> Answer | Running:
        """Begin one execution, or find out that it has had its last word before.

        Raises ``RefusedError``: 408 out of time, 409 in flight, 422 key of another request, 429 no slot free.
        """
        place = request.tenant_id, request.idempotency_key
        own = self._alive(place)
        budget_s = (request.deadline_at - self.now()).total_seconds()
        if budget_s <= 0:
            raise _deadline_passed()
        budget_s = min(budget_s, registered.manifest.timeout_s)
        sha256 = request_sha256(request.capability, request.inputs)
        claim = self.store.claim(*place, sha256, LEASE_S, _if_lost(registered.manifest))
        match claim:
            case Replayed(response):
                return Answer(response, replayed=True)
            case Mismatch():
                raise RefusedError(422, "agent.key_reused", "This idempotency key belongs to another request.")
            case InFlight(for_s):
                if own is not None:
                    own.attempt = max(own.attempt, request.attempt)
                raise _in_flight(min(for_s, _MAX_IN_FLIGHT_WAIT_S))
            case Claimed(token):
                if own is not None:
                    # Nobody has its claim any more, and yet it goes on: the claim is its own again.
                    own.token, own.attempt = token, max(own.attempt, request.attempt)
                    raise _in_flight(_BUSY_RETRY_S)
                return self._start(registered, request, token, budget_s, traceparent)
            case _:
                assert_never(claim)

    def _alive(self, place: tuple[str, str]) -> Running | None:
        """The execution under way here. Its lease may have run out while this process stood still: it is not lost."""
        own = self.running.get(place)
        if own is None or (own.task is not None and own.task.done()):
            return None
        self.store.renew(*place, own.token, LEASE_S)
        return own

    def _start(
        self, registered: Registered, request: ExecuteRequest, token: str, budget_s: float, traceparent: str | None
    ) -> Running:
        place = request.tenant_id, request.idempotency_key
        if len(self.running) >= self.slots:
            self.store.release(*place, token)
            raise RefusedError(429, "agent.busy", "Every slot is taken.", retryable=True, retry_after_s=_BUSY_RETRY_S)
        context = StepContext(request, registered.manifest, self.executor, traceparent=traceparent)
        loop = asyncio.get_running_loop()
        running = Running(registered, context, token, loop.time() + budget_s, request.attempt)
        running.task = asyncio.create_task(self._perform_and_settle(running))
        self.running[place] = running
        timer = loop.call_later(budget_s, running.stop, "deadline")
        running.task.add_done_callback(lambda task: self._finished(running, timer, task))
        return running

    def _finished(self, running: Running, timer: asyncio.TimerHandle, task: asyncio.Task[bytes]) -> None:
        timer.cancel()
        if self.running.get(running.place) is running:
            del self.running[running.place]
        running.context.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("execution did not settle", extra={"error_type": type(error).__name__})

    async def wait(self, running: Running, wait_s: float | None) -> Answer | None:
        """The answer, or None when it takes longer than ``wait_s``. ``RefusedError`` 408 at the deadline, 409 when the claim
        has passed to somebody else."""
        assert running.task is not None
        left_s = running.until - asyncio.get_running_loop().time()
        await asyncio.wait({running.task}, timeout=left_s if wait_s is None else min(wait_s, left_s))
        if asyncio.get_running_loop().time() >= running.until and not running.context.pending:
            await asyncio.wait({running.task}, timeout=_CUT_WAIT_S)
        if running.task.done() and (running.cut_by != "deadline" or running.is_concluded):
            return Answer(running.task.result())
        if running.task.done() or asyncio.get_running_loop().time() >= running.until:
            raise _deadline_passed()
        return None

    async def stream(self, running: Running) -> AsyncIterator[bytes]:
        """Lines: progress whenever there is some, a sign of life when there is none, and the result."""
        assert running.task is not None
        while not running.task.done():
            yield running.update() + b"\n"
            await asyncio.wait({running.task}, timeout=_TOLD_EVERY_S)
            await running.context.changed(_SILENCE_S)
        try:
            yield running.task.result() + b"\n"
        except RefusedError as refusal:
            yield failed(refusal.code, refusal.detail, retryable=refusal.retryable).model_dump_json().encode() + b"\n"

    def find(self, grant: Grant, wanted: str) -> bytes:
        """What is known of an execution, for whoever has a grant of its call.

        Raises ``RefusedError``: 403 for a grant of another one, 404 where nothing is known.
        """
        place = grant.tenant_id, grant.idempotency_key
        if execution_id(*place) != wanted:
            raise RefusedError(403, "grant.mismatch", "The grant is for another call.")
        own = self._alive(place)
        found = self.store.look(*place, grant.input_sha256)
        match found:
            case None:
                raise _unknown()
            case Mismatch():
                raise RefusedError(403, "grant.mismatch", "The grant is for another call.")
            case Replayed(response):
                return response
            case InFlight():
                return own.update() if own is not None else _running(*place)
            case _:
                assert_never(found)

    async def stop(self, grant: Grant, wanted: str) -> bytes:
        """Ask an execution to stop; what is known of it then, which may be that it goes on. Errors as ``find``.

        It goes on when a later attempt has asked for it since: whoever asks to stop has been replaced and does not know.
        """
        self.find(grant, wanted)
        own = self.running.get((grant.tenant_id, grant.idempotency_key))
        if own is not None and own.task is not None and grant.attempt >= own.attempt:
            own.stop("cancelled")
            await asyncio.wait({own.task}, timeout=_STOP_WAIT_S)
        return self.find(grant, wanted)

    async def _perform_and_settle(self, running: Running) -> bytes:
        keeper = asyncio.create_task(self._keep_lease(running))
        settled = False
        try:
            response = await self._performed(running)
            body = response.model_dump_json().encode()
            is_last_word = _is_last_word(running, response)
            keep = self.store.conclude if is_last_word else self.store.fail
            settled = keep(*running.place, running.token, body)
            running.is_concluded = settled and is_last_word
            if isinstance(response, ExecuteSucceeded) and not settled:
                raise RefusedError(409, "agent.in_flight", "The claim on this call has passed on.", retryable=True)
            return body
        finally:
            keeper.cancel()
            if not settled and (running.registered.manifest.is_repeatable or not running.context.begun):
                self.store.release(*running.place, running.token)

    async def _performed(self, running: Running) -> ExecuteResponse:
        running.is_under_way = True
        try:
            if running.stopped is None:
                return await perform(running.registered, running.context)
        except asyncio.CancelledError:
            if running.stopped is None:
                raise
        return _cut_off(running, running.stopped)

    async def _keep_lease(self, running: Running) -> None:
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            if not self.store.renew(*running.place, running.token, LEASE_S):
                return

    async def drain(self, timeout_s: float) -> int:
        """Wait for what is running, then stop it; returns how many executions could not be stopped."""
        await self._ended(timeout_s)
        for running in tuple(self.running.values()):
            running.stop("draining")
        await self._ended(_STOP_WAIT_S)
        return len(self.running)

    async def _ended(self, timeout_s: float) -> None:
        tasks = {running.task for running in self.running.values() if running.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
