"""Links of a session: one that a client sends to, one that it receives from, and the requests and answers of two nodes.

Every link belongs to one session, which writes for it. A link knows the broker, and nothing of sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from local_host.queue_commits import set_from_anywhere
from local_host.queue_extras import ServiceBusBroker
from local_host.queues import LockedMessage, QueueError, SessionLock
from local_host.service_bus.codec import DecodeError, Described, Symbol, ULong
from local_host.service_bus.frames import (
    ACCEPTED,
    MODIFIED,
    REJECTED,
    RELEASED,
    Performative,
    error,
)
from local_host.service_bus.messages import incoming, outgoing

MAX_MESSAGE_BYTES = 1024 * 1024 + 64 * 1024
"""The largest delivery that is read: the broker's largest body, with its properties."""
_RECEIVE_AT_ONCE = 100

LOCK_LOST = "com.microsoft:message-lock-lost"
SESSION_LOST = "com.microsoft:session-lock-lost"
_LOG = logging.getLogger("local_host.queue")

CONDITIONS = {
    "queue.not_found": "amqp:not-found",
    "queue.conflict": "amqp:not-allowed",
    "queue.lock_lost": LOCK_LOST,
    "queue.bad_message": "com.microsoft:argument-error",
    "queue.bad_name": "com.microsoft:argument-error",
}
"""What the broker's codes are called on the wire."""


class Writer(Protocol):
    """What a link needs of its session."""

    def deliver(self, link: OutLink, payload: bytes, tag: bytes, *, settled: bool) -> None:
        """Send one message, in as many frames as it takes."""
        ...

    def detach(self, handle: int, fault: Described | None) -> None:
        """End the link from our side."""
        ...


def accepted() -> Described:
    """The state of what was taken over."""
    return Described(ULong(ACCEPTED), [])


def rejected(err: QueueError | DecodeError) -> Described:
    """The state of what was refused, with the reason."""
    if isinstance(err, QueueError):
        return Described(ULong(REJECTED), [error(CONDITIONS[err.code], err.message)])
    return Described(ULong(REJECTED), [error("amqp:decode-error", str(err))])


@dataclass(slots=True)
class InLink:
    """A client sends here. ``take`` does something with a whole delivery and says what became of it."""

    handle: int
    node: str
    take: Callable[[bytes, int | None], Described]
    credit: int = 0
    delivery_count: int = 0
    parts: bytearray = field(default_factory=bytearray)
    first: Performative | None = None

    def add(self, frame: Performative, payload: bytes) -> tuple[Performative, bytes] | None:
        """One frame of a delivery; the delivery once it is whole. Raises ``DecodeError`` when it is too large."""
        if self.first is None:
            self.first = frame
        self.parts += payload
        if len(self.parts) > MAX_MESSAGE_BYTES:
            raise DecodeError("a message is larger than it may be")
        if frame["more"]:
            return None
        whole, first = bytes(self.parts), self.first
        self.parts, self.first = bytearray(), None
        if frame["aborted"]:
            return None
        return first, whole


def send_to(broker: ServiceBusBroker, entity: str, payload: bytes, message_format: int | None) -> Described:
    """Send what a client sent; a batch all or nothing."""
    try:
        broker.schedule(entity, incoming(payload, message_format))
    except (QueueError, DecodeError) as err:
        return rejected(err)
    return accepted()


@dataclass(slots=True, eq=False)
class OutLink:
    """A client receives here."""

    handle: int
    node: str
    writer: Writer
    credit: int = 0
    delivery_count: int = 0

    def grant(self, delivery_count: int | None, credit: int) -> None:
        """The client says how much it will take, counted from what it has seen."""
        seen = self.delivery_count if delivery_count is None else delivery_count
        self.credit = max(0, (seen + credit - self.delivery_count) & 0xFFFFFFFF) if credit else 0

    def spend(self) -> None:
        """One delivery was made."""
        self.credit -= 1
        self.delivery_count = (self.delivery_count + 1) & 0xFFFFFFFF

    def close(self) -> None:
        """Nobody listens any more."""


@dataclass(slots=True, eq=False)
class AnswerLink(OutLink):
    """Answers of ``$cbs`` or ``$management``; those that come before there is credit wait, a few of them."""

    waiting: list[bytes] = field(default_factory=list)

    def answer(self, payload: bytes) -> None:
        """Send an answer as soon as the client takes one."""
        if len(self.waiting) < 1_000:
            self.waiting.append(payload)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is credit."""
        while self.credit and self.waiting:
            self.writer.deliver(self, self.waiting.pop(0), uuid.uuid4().bytes_le, settled=True)


@dataclass(slots=True, eq=False)
class EntityLink(OutLink):
    """Messages of a queue, a subscription, a dead-letter queue, or of one session of them."""

    broker: ServiceBusBroker | None = None
    now: Callable[[], datetime] | None = None
    changes: Callable[[], AbstractContextManager[None]] | None = None
    session: SessionLock | None = None
    is_settled: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.TimerHandle | None = None
    _task: asyncio.Task[None] | None = None
    _unwatch: Callable[[], None] | None = None

    def open(self) -> None:
        """Begin to deliver whenever there is credit and a message."""
        assert self.broker is not None
        loop = asyncio.get_running_loop()
        session_id = self.session.session_id if self.session is not None else None
        self._unwatch = self.broker.on_available(self.node, lambda: set_from_anywhere(loop, self._wake), session_id)
        self._task = loop.create_task(self._run())

    def close(self) -> None:
        """Stop. Messages that were delivered stay locked until their time is up, but a session is given back."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self.session is not None and self.broker is not None:
            lock, self.session = self.session, None
            with contextlib.suppress(sqlite3.Error):  # a full disk: then it is free when its time is up
                self.broker.release_session(lock)

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            assert self.changes is not None
            try:
                with self.changes():
                    self.pump()
            except QueueError as err:
                condition = SESSION_LOST if self.session is not None else CONDITIONS[err.code]
                self.writer.detach(self.handle, error(condition, err.message))
                return
            except sqlite3.Error as err:
                # Said, so that the client attaches anew: of a link that only fell silent it would wait for ever.
                _LOG.error("a receiver of %s is let go: %s", self.node, type(err).__name__)
                self.writer.detach(self.handle, error("amqp:internal-error", "the emulator cannot use its file"))
                return

    def pump(self) -> None:
        """Deliver what there is and the client takes."""
        assert self.broker is not None
        while self.credit > 0:
            found = self.broker.receive(self.node, min(self.credit, _RECEIVE_AT_ONCE), self.session)
            if not found:
                self._look_later()
                return
            for locked in found:
                self._deliver(locked)

    def _deliver(self, locked: LockedMessage) -> None:
        assert self.broker is not None
        tag = uuid.UUID(locked.lock_token).bytes_le
        if self.is_settled:
            self.broker.complete(self.node, locked.lock_token)
        self.writer.deliver(self, outgoing(locked), tag, settled=self.is_settled)

    def _look_later(self) -> None:
        assert self.broker is not None
        assert self.now is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self.broker.next_due_at(self.node)
        if due_at is not None:
            wait_s = max(0.01, min((due_at - self.now()).total_seconds(), 3_600))
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake.set)

    def settle(self, tag: bytes, state: Any) -> Described:
        """Do with a delivered message as the client says; the state that says what was done."""
        assert self.broker is not None
        token = str(uuid.UUID(bytes_le=tag))
        code = state.descriptor if isinstance(state, Described) else None
        fields = state.value if isinstance(state, Described) and isinstance(state.value, list) else []
        try:
            if code == ACCEPTED:
                self.broker.complete(self.node, token)
            elif code == REJECTED:
                self.broker.dead_letter(self.node, token, *_why(fields))
            elif code == MODIFIED and len(fields) > 1 and fields[1]:
                self.broker.defer(self.node, token)
            elif code == MODIFIED:
                self.broker.abandon(self.node, token)
            elif code == RELEASED:
                self.broker.release(self.node, token)
            else:
                raise QueueError("queue.bad_message", "there is no such outcome")
        except QueueError as err:
            if err.code == "queue.lock_lost" and self.session is not None:
                return Described(ULong(REJECTED), [error(SESSION_LOST, err.message)])
            return rejected(err)
        return Described(ULong(code), [] if code != REJECTED else [None])


def _why(fields: list[Any]) -> tuple[str, str]:
    """Reason and description of a dead letter, as the SDK puts them into the error's info."""
    fault = fields[0].value if fields and isinstance(fields[0], Described) else []
    info = fault[2] if isinstance(fault, list) and len(fault) > 2 and isinstance(fault[2], dict) else {}
    named = {str(key): value for key, value in info.items()}
    reason = named.get("DeadLetterReason") or (str(fault[0]) if fault else "")
    return str(reason)[:4_096], str(named.get("DeadLetterErrorDescription") or "")[:4_096]


SESSION_FILTER = Symbol("com.microsoft:session-filter")
