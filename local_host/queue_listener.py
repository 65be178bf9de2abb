"""The Service Bus trigger: receives from the broker, calls the function, settles by its outcome.

Success completes, an exception abandons (so the broker counts and finally dead-letters), as the extension does with
auto-complete. One listener per function. It deliberately does not poll: the broker wakes it after sends, the clock
when a scheduled message or an expiring lock comes due. While the host is full it receives nothing: what waits stays in
its queue, undelivered and uncounted, until there is room.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from azure.functions.meta import Datum

from local_host.durable.admission import Admission
from local_host.durable.clock import Alarm, Clock
from local_host.invocation import FunctionError, Invoker, TriggerInput
from local_host.invocation_context import Trace
from local_host.queue_commits import Turns, set_from_anywhere
from local_host.queues import EntityOptions, LockedMessage, QueueBroker, QueueError, SessionLock
from local_host.settings import ServiceBusOptions
from local_host.specs import Cardinality, FunctionSpec, QueueTrigger

_log = logging.getLogger("local_host.queue")


RETRY_S = 1.0
"""How soon to try again after the broker could not use its file."""


@dataclass(frozen=True, slots=True)
class _Bodies:
    """What the SDK expects behind a `collection_bytes` datum."""

    bytes: list[bytes]


class QueueListener:
    """Runs one queue function."""

    def __init__(
        self,
        spec: FunctionSpec,
        broker: QueueBroker,
        invoker: Invoker,
        clock: Clock,
        options: ServiceBusOptions,
        admission: Admission,
        turns: Turns,
    ) -> None:
        self._admission, self._turns = admission, turns
        assert isinstance(spec.trigger, QueueTrigger)
        self._spec, self._trigger = spec, spec.trigger
        self._broker, self._invoker, self._clock, self._options = broker, invoker, clock, options
        self._wake = asyncio.Event()
        self._busy: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._pump_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Declare the entity and begin to receive."""
        name = self._trigger.entity
        self._broker.declare(name, EntityOptions(sessions=True) if self._trigger.sessions else None)
        self._stop_waking = self._broker.on_available(name, self._wake_soon(asyncio.get_running_loop()))
        self._pump_task = asyncio.create_task(self._pump(), name=f"queue:{name}")

    async def stop(self, drain_s: float) -> None:
        """Receive no more, wait for running calls, then give the rest back to the queue."""
        self._stopping = True
        self._wake.set()
        if self._pump_task is None:
            return
        self._stop_waking()
        await self._pump_task
        if self._busy:
            _, late = await asyncio.wait(self._busy, timeout=drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _wake_at(self, due_at: datetime) -> Alarm:
        # No later than it would be now: when the clock is set back, the broker moves what it has to wait for.
        within_s = (due_at - self._clock.now()).total_seconds()
        return self._clock.call_at(due_at, self._wake.set, within_s=within_s)

    def _wake_soon(self, loop: asyncio.AbstractEventLoop) -> Any:
        # A synchronous function may send from its pool thread; an asyncio.Event may only be set on its loop.
        return lambda: set_from_anywhere(loop, self._wake)

    async def _pump(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                if self._start_work():
                    await asyncio.sleep(0)
                    continue
                due_at = self._broker.next_due_at(self._trigger.entity)
                alarm = self._wake_at(due_at) if due_at is not None else None
            except sqlite3.Error as err:  # a full disk and the like, which ends
                _log.error("queue %s: nothing can be received (%s)", self._trigger.entity, type(err).__name__)
                alarm = self._clock.call_after(RETRY_S, self._wake.set)
            await self._wake.wait()
            if alarm is not None:
                alarm.cancel()

    def _start_work(self) -> bool:
        """Start what limits, room and queue allow; False when there is nothing (more) to start now."""
        room = self._room()
        if room == 0:
            return False
        if self._trigger.sessions:
            if len(self._busy) >= self._options.max_concurrent_sessions:
                return False
            with self._turns.changes():
                session = self._broker.accept_session(self._trigger.entity)
            if session is None:
                return False
            self._spawn(self._serve_session(session))
            return True
        many = self._trigger.cardinality is Cardinality.MANY
        free = (0 if self._busy else 1) if many else self._options.max_concurrent_calls - len(self._busy)
        if free <= 0:
            return False
        wanted = self._options.max_batch_size if many else free
        with self._turns.changes():  # committed before the function begins, which is in the next turn
            received = self._broker.receive(self._trigger.entity, min(wanted, room))
        for batch in [received] if many else [[message] for message in received]:
            if batch:
                self._spawn(self._handle(batch, None))
        return bool(received)

    def _room(self) -> int:
        """Messages to take at most: each may start an instance, also those whose calls have not got that far."""
        room = max(0, self._admission.room - len(self._busy))
        if room == 0:
            self._admission.when_room(self._wake.set)
        return room

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._busy.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            _log.error("queue %s: the listener failed", self._trigger.entity, exc_info=task.exception())

    async def _serve_session(self, session: SessionLock) -> None:
        """All messages of a session in order, one call at a time, until it is empty."""
        limit = self._options.max_batch_size if self._trigger.cardinality is Cardinality.MANY else 1
        try:
            while not self._stopping and (room := self._admission.room) > 0:
                batch = self._broker.receive(session.entity, min(limit, room), session)
                if not batch:
                    break
                await self._handle(batch, session)
        except QueueError as err:
            _log.warning("queue %s: session given up (%s)", session.entity, err.code)
        finally:
            self._broker.release_session(session)

    async def _handle(self, batch: Sequence[LockedMessage], session: SessionLock | None) -> None:
        keeper = _LockKeeper(self._broker, self._clock, batch, session, self._options.max_renewal_s)
        try:
            traceparent = batch[0].message.properties.get("Diagnostic-Id", "")
            trace = Trace.from_headers({"traceparent": str(traceparent)})
            await self._invoker.call(self._spec, self._input(batch), trace)
        except FunctionError as err:
            _log.error("function %s failed\n%s", err.function_name, err.host_text())
            self._settle(batch, "abandon")
        except asyncio.CancelledError:
            self._settle(batch, "abandon")
            raise
        else:
            if self._options.auto_complete:
                self._settle(batch, "complete")
        finally:
            keeper.stop()

    def _input(self, batch: Sequence[LockedMessage]) -> TriggerInput:
        if self._trigger.cardinality is Cardinality.ONE:
            return TriggerInput(Datum(batch[0].message.body, "bytes"), single_metadata(batch[0]))
        bodies = _Bodies([locked.message.body for locked in batch])
        return TriggerInput(Datum(bodies, "collection_bytes"), batch_metadata(batch))

    def _settle(self, batch: Sequence[LockedMessage], action: str) -> None:
        for locked in batch:
            try:
                with self._turns.changes():
                    if action == "complete":
                        self._broker.complete(locked.entity, locked.lock_token)
                    else:
                        self._broker.abandon(locked.entity, locked.lock_token)
            except QueueError as err:
                _log.warning(
                    "queue %s: message %d not settled (%s); it will be delivered again",
                    locked.entity,
                    locked.sequence_number,
                    err.code,
                )


class _LockKeeper:
    """Renews the locks of a running call at half time, up to the configured total."""

    def __init__(
        self,
        broker: QueueBroker,
        clock: Clock,
        batch: Sequence[LockedMessage],
        session: SessionLock | None,
        max_renewal_s: float,
    ) -> None:
        self._broker, self._clock, self._batch, self._session = broker, clock, batch, session
        self._left_s = max_renewal_s
        self._half_s = max((batch[0].locked_until_at - clock.now()).total_seconds() / 2, 0.01)
        self._alarm: Alarm = clock.call_after(self._half_s, self._renew)

    def _renew(self) -> None:
        self._left_s -= self._half_s
        if self._left_s <= 0:
            return
        try:
            if self._session is not None:
                self._session = self._broker.renew_session(self._session)
            else:
                for locked in self._batch:
                    self._broker.renew(locked.entity, locked.lock_token)
        except QueueError:
            return  # settling will find out and say so
        except sqlite3.Error as err:
            _log.error("queue %s: a lock cannot be renewed yet (%s)", self._batch[0].entity, type(err).__name__)
            self._alarm = self._clock.call_after(min(self._half_s, RETRY_S), self._renew)
            return
        self._alarm = self._clock.call_after(self._half_s, self._renew)

    def stop(self) -> None:
        self._alarm.cancel()


def single_metadata(locked: LockedMessage) -> dict[str, Datum]:
    """Trigger metadata of one message. The key UserProperties is what tells the SDK "one message"."""
    return {name: _datum(value) for name, value in _facts(locked).items() if value is not None}


def batch_metadata(batch: Sequence[LockedMessage]) -> dict[str, Datum]:
    """Trigger metadata of a batch: `<Name>Array` keys with a JSON list each."""
    facts = [_facts(locked) for locked in batch]
    return {f"{name}Array": Datum(json.dumps([fact[name] for fact in facts]), "json") for name in facts[0]}


def _datum(value: Any) -> Datum:
    match value:
        case str():
            return Datum(value, "string")
        case int():
            return Datum(value, "int")
        case _:
            return Datum(json.dumps(value), "json")


def _facts(locked: LockedMessage) -> dict[str, Any]:
    message = locked.message
    properties = dict(message.properties)
    return {
        "UserProperties": properties,
        "ApplicationProperties": properties,
        "MessageId": message.message_id,
        "SequenceNumber": locked.sequence_number,
        "EnqueuedSequenceNumber": locked.sequence_number,
        "DeliveryCount": locked.delivery_count,
        "EnqueuedTimeUtc": _iso(locked.enqueued_at),
        "ExpiresAtUtc": _iso(locked.expires_at),
        "LockedUntil": _iso(locked.locked_until_at),
        "LockToken": locked.lock_token,
        "ContentType": message.content_type,
        "CorrelationId": message.correlation_id,
        "Subject": message.subject,
        "Label": message.subject,
        "ReplyTo": message.reply_to,
        "ReplyToSessionId": message.reply_to_session_id,
        "SessionId": message.session_id,
        "PartitionKey": message.partition_key,
        "To": message.to,
        "ScheduledEnqueueTimeUtc": _iso(message.scheduled_at),
        "TimeToLive": _clock_text(message.ttl_s),
        "DeadLetterReason": locked.dead_letter_reason,
        "DeadLetterErrorDescription": locked.dead_letter_description,
        "DeadLetterSource": locked.dead_letter_source,
        "State": 0,
    }


def _iso(moment_at: datetime | None) -> str | None:
    return moment_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment_at is not None else None


def _clock_text(seconds: float | None) -> str | None:
    # The SDK parses HH:MM:SS only; a longer time to live would make its converter raise.
    if seconds is None or not 0 <= seconds < 86_400:
        return None
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
