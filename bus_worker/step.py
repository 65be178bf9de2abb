"""One step of a worker: take the lease, call the agent while the lease is kept alive, store the answer, tell it.

Who holds the lease is decided by the store alone. A heartbeat that is refused means that nobody waits for this work any more: the
call is cancelled and nothing is answered. A heartbeat that cannot be made means nothing: the work goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import ValidationError

from engine.domain.bus import Assignment, StepCommand, StepResult, nonce_sha256, session_of
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.events import EventType, StepEventData, new_event
from engine.domain.execute import ExecuteError, ExecuteFailed, ExecuteRequest, ExecuteResponse
from engine.domain.run import PayloadRef
from engine.domain.status import RunStatus
from engine.domain.telemetry_names import AGENT_NAME, OPERATION, RUN_ID, SPAN_AGENT, STEP_ATTEMPT, STEP_ID, TOOL_NAME
from engine.ports.assignments import Finished, NotLeased
from engine.ports.deps import Deps
from engine.ports.invoker import LEAVE_RUNNING
from engine.ports.telemetry import Attribute
from engine.step_runner import ProgressReporter, StepTask, parse_command, send_command

_LOG = logging.getLogger("livoa.worker")

BEATS_PER_LEASE = 3
"""Heartbeats in the time of one lease: two may be lost."""
OVERTIME_S = 5.0
"""The agent's client gives up at the deadline by itself; for so long it may take to say so."""
STORE_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Before each further try to store or send an answer. What cannot be told after all of them is the sweep's."""
LEFT_TO_THE_NEXT = frozenset({"superseded", "lapsed"})
"""Why a heartbeat is refused when a later attempt has the step, or may get it: the lease ran out, and nobody wants it stopped."""
T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


class Results(Protocol):
    """The way back."""

    async def send(self, result: StepResult, *, traceparent: str | None = None) -> None:
        """Send durably. Raises ``LivoaError("bus.unavailable")``."""
        ...


@dataclass(frozen=True, slots=True)
class Received:
    """A command as it came. ``tenant_id`` is whose queue it came from; None for a shared one."""

    body: bytes
    session_id: str | None = None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Poison:
    """Nobody can do anything with it: to the dead letters, with this code and these words."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """It is done, being done, or not wanted any more; the message can go."""

    reason: str


@dataclass(slots=True)
class Held:
    """A step that this worker holds. ``call`` is the agent's call while it is under way."""

    assignment: Assignment
    nonce: str
    call: asyncio.Task[ExecuteResponse] | None = None
    is_given_back: bool = False
    is_answering: bool = False

    @property
    def of(self) -> tuple[str, str, str, int]:
        """What names it in the store."""
        return self.assignment.tenant_id, self.assignment.run_id, self.assignment.key, self.assignment.token

    @property
    def facts(self) -> dict[str, object]:
        """For logs: ids and counts."""
        at = self.assignment
        return {"run_id": at.run_id, "step_id": at.step_id, "item": at.item, "attempt": at.attempt, "worker": at.worker}


@dataclass(slots=True)
class StepWorker:
    """Carries steps out. ``name`` is shown where people look who has a step. One for each process."""

    deps: Deps
    results: Results
    name: str
    sleep: Sleep = asyncio.sleep
    new_nonce: Callable[[], str] = field(default=lambda: secrets.token_urlsafe(32))

    async def take(self, received: Received) -> Held | Poison | NothingToDo:
        """Take the lease of a command. When it returns, the message may be settled: the store knows who has the step.

        Raises ``LivoaError`` while the store is away: then nothing has been taken, or the same is found again by nobody else.
        """
        try:
            command = parse_command(received.body)
        except LivoaError as err:
            return Poison(err.code, err.message)
        if (misplaced := _misplaced(command, received)) is not None:
            return misplaced
        nonce, of = self.new_nonce(), (command.tenant_id, command.run_id, command.key, command.token)
        taken = await self._persistently(
            lambda: self.deps.assignments.lease(*of, worker=self.name, nonce=nonce, now=self.deps.clock.now()), tries=5
        )
        if isinstance(taken, NotLeased):
            if taken.reason == "unknown":
                return Poison("bus.command_unknown", "no such step was ever handed on")
            return NothingToDo(taken.reason)
        held = Held(taken.assignment, nonce)
        _LOG.info("step taken", extra=held.facts | {"capability": command.capability})
        return held

    async def carry_out(self, held: Held) -> None:
        """From the lease to the answer. Never raises what the step can cause; what goes wrong here is the step's error."""
        work = asyncio.create_task(self._work(held))
        beat = asyncio.create_task(self._keep_alive(held))
        try:
            await asyncio.wait({work, beat}, return_when=asyncio.FIRST_COMPLETED)
            if held.is_answering:  # once the answer is stored, a heartbeat is refused too
                await asyncio.wait({work})
            elif not work.done():
                _LOG.warning("step given up: nobody waits for it", extra=held.facts | {"code": beat.result()})
                if beat.result() in LEFT_TO_THE_NEXT and await self._goes_on(held):
                    # The next attempt asks for the same execution: stopping it would stop theirs.
                    await self.give_back(held)
        finally:
            for task in (work, beat):
                task.cancel()
            for error in await asyncio.gather(work, beat, return_exceptions=True):
                if isinstance(error, Exception):
                    _LOG.error("step broke off", exc_info=error, extra=held.facts)

    async def give_back(self, held: Held) -> None:
        """Let go of a step whose call is under way, without an answer: somebody else takes it up, under the same key.

        The agent goes on with it.
        """
        held.is_given_back = True
        if held.call is not None:
            held.call.cancel(LEAVE_RUNNING)
            await asyncio.wait({held.call})

    async def _goes_on(self, held: Held) -> bool:
        """Whether the run does, and its step is not over, so that somebody waits for what the agent is at, or will."""
        at, task = held.assignment, _task_of(held.assignment)
        try:
            run = await self.deps.runs.get(at.tenant_id, at.run_id)
            record = await self.deps.runs.get_step(at.tenant_id, at.run_id, task.record_id, at.item)
        except LivoaError:
            return True  # the execution ends at its deadline, whoever waits for it
        if run is None or run.status.is_final or run.status is RunStatus.CANCELLING:
            return False
        return record is None or not record.status.is_final

    async def _work(self, held: Held) -> None:
        await self._tell_taken(held)
        response = await self._respond(held)
        if held.is_given_back and (held.call is None or held.call.cancelled()):
            return await self._return_to_queue(held)
        return await self._answer(held, response)

    async def _tell_taken(self, held: Held) -> None:
        """Say in the run's event log who has the step. A courtesy: the work does not wait for a store that is away."""
        at = held.assignment
        data = StepEventData(
            step_id=at.step_id, attempt=at.attempt, item=at.item, capability=at.capability, worker=self.name
        )
        # Somebody who takes up what was handed back says so too, under the same attempt.
        key = f"step.progressed/{at.key}#{at.attempt}/taken-{nonce_sha256(held.nonce)[:12]}"
        try:
            event = new_event(EventType.STEP_PROGRESSED, data, key)
            await self.deps.events.append(at.tenant_id, at.run_id, [event])
        except LivoaError as err:
            _LOG.warning("who has the step could not be told", extra=held.facts | {"code": err.code})

    async def _respond(self, held: Held) -> ExecuteResponse:
        """What the agent says, or why it was not asked."""
        try:
            request, capability = await self._question(held.assignment)
        except LivoaError as err:
            return _failed(err.code, err.message, retryable=err.status >= 500)
        if held.is_given_back:
            return _failed("agent.cancelled", "it was not called", retryable=True)
        held.call = asyncio.create_task(self._call(held.assignment, capability, request))
        try:
            await asyncio.wait({held.call})
        finally:
            # Of a step that is given up; one that is done does not mind. The agent is told, which may take a moment.
            held.call.cancel()
            await asyncio.wait({held.call}, timeout=OVERTIME_S)
        if held.call.cancelled():
            return _failed("agent.cancelled", "the call was cancelled", retryable=True)
        return held.call.result()

    async def _question(self, at: Assignment) -> tuple[ExecuteRequest, Capability]:
        """What to ask, held against what was assigned. Raises ``LivoaError``."""
        data = await self._persistently(
            lambda: self.deps.payloads.get(at.tenant_id, at.run_id, at.request_ref), tries=4
        )
        try:
            request = ExecuteRequest.model_validate_json(data)
        except ValidationError:
            raise LivoaError("bus.request_invalid", "what was assigned is no request", status=422) from None
        asked = (request.tenant_id, request.run_id, request.step_id, request.item, request.idempotency_key)
        if asked != (at.tenant_id, at.run_id, at.step_id, at.item, at.key) or request.capability != at.capability:
            raise LivoaError("bus.request_invalid", "the request is not the one that was assigned", status=422)
        capability = self.deps.catalog.capabilities.get(at.capability)
        if capability is None:
            raise LivoaError("bus.capability_unknown", "this worker's catalog does not have the capability", status=422)
        return request, capability

    async def _call(self, at: Assignment, capability: Capability, request: ExecuteRequest) -> ExecuteResponse:
        attributes: dict[str, Attribute] = {
            AGENT_NAME: capability.endpoint,
            TOOL_NAME: capability.name,
            OPERATION: SPAN_AGENT,
            RUN_ID: at.run_id,
            STEP_ID: at.step_id,
            STEP_ATTEMPT: at.attempt,
        }
        name = f"{SPAN_AGENT} {capability.endpoint}"
        with self.deps.telemetry.span(name, kind="consumer", traceparent=at.traceparent, attributes=attributes) as span:
            remaining_s = (request.deadline_at - self.deps.clock.now()).total_seconds()
            try:
                async with asyncio.timeout(max(remaining_s, 0) + OVERTIME_S):
                    response = await self.deps.invoker.invoke(
                        capability,
                        request,
                        traceparent=span.traceparent,
                        progress=ProgressReporter(_task_of(at), capability.name, self.deps),
                    )
            except TimeoutError:
                response = _failed("agent.timeout", "no answer in time", retryable=True)
            except Exception as err:
                # Not what the port promises; but somebody waits for an answer.
                _LOG.exception("call raised", extra={"run_id": at.run_id, "step_id": at.step_id})
                response = _failed("agent.error", f"the call raised {type(err).__name__}", retryable=True)
            if isinstance(response, ExecuteFailed):
                span.fail(response.error.code)
        return response

    async def _answer(self, held: Held, response: ExecuteResponse) -> None:
        """Store the answer, then tell of it. Told even where the store could not be reached: the other side stores it too."""
        at, deps = held.assignment, self.deps
        held.is_answering = True
        body = response.model_dump_json().encode()
        ref = await self._persistently(lambda: deps.payloads.put(at.tenant_id, at.run_id, body))
        try:
            counted = await self._finish(held, ref)
        except LivoaError as err:
            _LOG.warning("answer could not be stored", extra=held.facts | {"code": err.code})
            counted = True
        code = response.error.code if isinstance(response, ExecuteFailed) else None
        said = "step answered" if counted else "step answered too late"
        _LOG.info(said, extra=held.facts | {"status": response.status, "code": code})
        tenant_id, run_id, key, token = held.of
        result = StepResult(
            tenant_id=tenant_id, run_id=run_id, key=key, token=token, nonce=held.nonce, response_ref=ref
        )
        try:
            await self._persistently(lambda: self.results.send(result, traceparent=at.traceparent))
        except LivoaError as err:
            _LOG.warning("answer could not be told, left to the sweep", extra=held.facts | {"code": err.code})

    async def _finish(self, held: Held, ref: PayloadRef) -> bool:
        deps = self.deps
        answer = await self._persistently(
            lambda: deps.assignments.finish(*held.of, nonce=held.nonce, response_ref=ref, now=deps.clock.now())
        )
        return isinstance(answer, Finished)

    async def _return_to_queue(self, held: Held) -> None:
        try:
            back = await self.deps.assignments.release(*held.of, nonce=held.nonce)
            if back is None:  # somebody else has it already
                return
            await send_command(back, self.deps)
        except LivoaError as err:
            # Its lease runs out, or the sweep sends the command: later, but it does not get lost.
            _LOG.warning("step could not be handed back", extra=held.facts | {"code": err.code})
            return
        _LOG.info("step handed back", extra=held.facts)

    async def _keep_alive(self, held: Held) -> str:
        """Renew the lease for ever; returns why, when it is refused."""
        every_s = held.assignment.lease_s / BEATS_PER_LEASE
        while True:
            await self.sleep(every_s)
            try:
                answer = await self.deps.assignments.heartbeat(*held.of, nonce=held.nonce, now=self.deps.clock.now())
            except Exception as err:
                _LOG.warning("no heartbeat: %s", type(err).__name__, extra=held.facts)
                continue
            if isinstance(answer, NotLeased):
                return answer.reason

    async def _persistently(self, act: Callable[[], Awaitable[T]], *, tries: int = len(STORE_PAUSES_S) + 1) -> T:
        """Repeat what is idempotent while the other side is away (status 500 and above)."""
        for pause_s in STORE_PAUSES_S[: tries - 1]:
            try:
                return await act()
            except LivoaError as err:
                if err.status < 500:
                    raise
            await self.sleep(pause_s)
        return await act()


def _task_of(at: Assignment) -> StepTask:
    return StepTask(
        tenant_id=at.tenant_id,
        run_id=at.run_id,
        step_id=at.step_id,
        item=at.item,
        attempt=at.attempt,
        purpose=at.purpose,
    )


def _misplaced(command: StepCommand, received: Received) -> Poison | None:
    """A command in a queue or a session of somebody else."""
    if received.tenant_id is not None and received.tenant_id != command.tenant_id:
        return Poison("bus.command_misplaced", "the queue belongs to another tenant")
    if received.session_id is not None and received.session_id != session_of(command.tenant_id, command.key):
        return Poison("bus.command_misplaced", "the session is not that of the step")
    return None


def _failed(code: str, message: str, *, retryable: bool) -> ExecuteFailed:
    return ExecuteFailed(error=ExecuteError(code=code, message=message, retryable=retryable))
