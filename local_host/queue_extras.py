"""What Service Bus can do beyond receiving in order: peek, defer, schedule and cancel, session state, sessions by name.

Only the AMQP door needs it; the Functions triggers and the HTTP door do without.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import replace

from local_host.queue_store import SqliteQueueBroker, from_us, locked_message
from local_host.queue_time import NEVER_US
from local_host.queues import EntityOptions, LockedMessage, OutgoingMessage, QueueError, SessionLock

MAX_BATCH = 250
"""How many messages one look, deferral or cancellation may name."""
MAX_STATE_BYTES = 256 * 1024

_STATE = """
CREATE TABLE IF NOT EXISTS session_state (entity TEXT, session_id TEXT, state BLOB, PRIMARY KEY (entity, session_id));
"""


class ServiceBusBroker(SqliteQueueBroker):
    """The broker of the host with the rest of what the SDK may ask for. Sequence numbers are unique over the whole file."""

    def _prepare(self, db: sqlite3.Connection) -> None:
        super()._prepare(db)
        db.executescript(_STATE)

    def options(self, name: str) -> EntityOptions:
        """The settings of a queue, subscription or dead-letter queue. Raises ``queue.not_found`` and ``queue.conflict``."""
        with self._lock:
            return self._options(name)

    def is_topic(self, name: str) -> bool:
        """True for a topic. Raises ``queue.not_found`` for what is neither topic nor queue."""
        with self._lock:
            row = self._db.execute("SELECT options FROM entity WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise QueueError("queue.not_found", f"there is no queue or topic {name!r}")
        return row["options"] is None

    def peek(self, name: str, from_sequence: int, limit: int, session_id: str | None = None) -> list[LockedMessage]:
        """Messages from a sequence number on, locked or not, deferred or scheduled too, without touching them."""
        with self._transaction():
            self._sweep(name, self._options(name))
            rows = self._db.execute(
                "SELECT * FROM message WHERE entity = ? AND seq >= ? AND (? IS NULL OR session_id = ?) ORDER BY seq LIMIT ?",
                (name, from_sequence, session_id, session_id, min(limit, MAX_BATCH)),
            ).fetchall()
            return [replace(locked_message(row, "", 0), delivery_count=row["delivery_count"]) for row in rows]

    def schedule(self, name: str, messages: Sequence[OutgoingMessage]) -> list[int]:
        """Send all or nothing, and return the sequence number of each; a duplicate has that of nothing, 0."""
        numbers: list[int] = []
        with self._transaction():
            targets = self._targets(name)
            for message in messages:
                named = replace(message, message_id=message.message_id or uuid.uuid4().hex)
                made = [self._enqueue(target, named) for target in targets]
                numbers.append(made[0] if made and made[0] is not None else 0)
        for target in targets:
            self._wake(target, {message.session_id for message in messages})
        return numbers

    def cancel_scheduled(self, name: str, numbers: Sequence[int]) -> None:
        """Take back messages whose time has not come. Raises ``queue.not_found`` when one of them is not there."""
        _refuse_many(numbers)
        with self._transaction():
            now_us = self._now_us()
            for number in numbers:
                gone = self._db.execute(
                    "DELETE FROM message WHERE entity = ? AND seq = ? AND available_us > ? AND available_us < ?",
                    (name, number, now_us, NEVER_US),
                )
                if not gone.rowcount:
                    raise QueueError("queue.not_found", f"no scheduled message has the number {number}")

    def release(self, entity: str, lock_token: str) -> None:
        """Give a message back as if it had not been delivered: the attempt does not count."""
        with self._transaction():
            row = self._held(entity, lock_token)
            self._db.execute(
                "UPDATE message SET lock_token = NULL, locked_until_us = NULL, delivery_count = delivery_count - 1"
                " WHERE seq = ?",
                (row["seq"],),
            )
        self._wake(entity, {row["session_id"]})

    def defer(self, entity: str, lock_token: str) -> None:
        """Put a message aside: from now on it is received by its sequence number alone."""
        with self._transaction():
            row = self._held(entity, lock_token)
            self._db.execute(
                "UPDATE message SET lock_token = NULL, locked_until_us = NULL, available_us = ? WHERE seq = ?",
                (NEVER_US, row["seq"]),
            )

    def receive_deferred(
        self, name: str, numbers: Sequence[int], session: SessionLock | None = None
    ) -> list[LockedMessage]:
        """Lock deferred messages. Raises ``queue.not_found`` when one of them is not there, or held by somebody."""
        _refuse_many(numbers)
        with self._transaction():
            options, now_us, found = self._options(name), self._now_us(), []
            if session is not None:
                self._check_session(session)
            for number in numbers:
                row = self._db.execute(
                    "SELECT * FROM message WHERE entity = ? AND seq = ? AND available_us = ?"
                    " AND (locked_until_us IS NULL OR locked_until_us <= ?)",
                    (name, number, NEVER_US, now_us),
                ).fetchone()
                if row is None:
                    raise QueueError("queue.not_found", f"no deferred message has the number {number}")
                found.append(self._lock_row(row, options, session))
            return found

    def accept_named(self, name: str, session_id: str) -> SessionLock | None:
        """Lock a session by its name, whether or not it has messages; None while somebody else has it."""
        with self._transaction():
            options = self._options(name)
            if not options.sessions:
                raise QueueError("queue.conflict", f"{name!r} has no sessions")
            now_us = self._now_us()
            row = self._db.execute(
                "SELECT 1 FROM session WHERE entity = ? AND session_id = ? AND locked_until_us > ?",
                (name, session_id, now_us),
            ).fetchone()
            if row is not None:
                return None
            until_us = now_us + int(options.lock_s * 1_000_000)
            lock = SessionLock(name, session_id, str(uuid.uuid4()), from_us(until_us))
            self._db.execute(
                "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?)", (name, session_id, lock.token, until_us)
            )
            return lock

    def session_state(self, lock: SessionLock) -> bytes | None:
        """What was kept with the session, or None. Raises ``queue.lock_lost``."""
        with self._transaction():
            self._check_session(lock)
            row = self._db.execute(
                "SELECT state FROM session_state WHERE entity = ? AND session_id = ?", (lock.entity, lock.session_id)
            ).fetchone()
            return row["state"] if row is not None else None

    def set_session_state(self, lock: SessionLock, state: bytes | None) -> None:
        """Keep ``state`` with the session; None removes it. Raises ``queue.lock_lost`` and ``queue.bad_message``."""
        if state is not None and len(state) > MAX_STATE_BYTES:
            raise QueueError("queue.bad_message", f"the state of a session has at most {MAX_STATE_BYTES} bytes")
        with self._transaction():
            self._check_session(lock)
            self._db.execute(
                "DELETE FROM session_state WHERE entity = ? AND session_id = ?", (lock.entity, lock.session_id)
            )
            if state is not None:
                self._db.execute("INSERT INTO session_state VALUES (?, ?, ?)", (lock.entity, lock.session_id, state))


def _refuse_many(numbers: Sequence[int]) -> None:
    """Rather than do a part of what was asked and say that it is done."""
    if len(numbers) > MAX_BATCH:
        raise QueueError("queue.bad_message", f"at most {MAX_BATCH} messages at once")
