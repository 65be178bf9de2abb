"""SQLite implementation of the queue port: one file, one writer process, crash-safe.

Every public method is one transaction with full synchronisation, so an acknowledged send survives `kill -9`; who serves many
clients groups them (`transactions`). Lock expiry, time to live and scheduled times are evaluated when someone looks, against the
injected clock; there is no background thread. It deliberately trusts the host's single-instance lock: two processes on one file
would not wake each other.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from local_host.queue_commits import Transactions
from local_host.queue_time import NEVER_US, QueueTime
from local_host.queues import (
    DEAD_LETTER_SUFFIX,
    MAX_BODY_BYTES,
    EntityCounts,
    EntityOptions,
    LockedMessage,
    OutgoingMessage,
    QueueError,
    SessionLock,
    checked_name,
    topic_of,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entity (name TEXT PRIMARY KEY, topic TEXT, options TEXT);
CREATE TABLE IF NOT EXISTS message (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, entity TEXT NOT NULL, message_id TEXT NOT NULL, session_id TEXT,
  body BLOB NOT NULL, envelope TEXT NOT NULL, enqueued_us INTEGER NOT NULL, available_us INTEGER NOT NULL,
  expires_us INTEGER, delivery_count INTEGER NOT NULL DEFAULT 0, lock_token TEXT, locked_until_us INTEGER,
  dl_reason TEXT, dl_description TEXT, dl_source TEXT);
CREATE INDEX IF NOT EXISTS message_next ON message (entity, session_id, seq);
CREATE INDEX IF NOT EXISTS message_order ON message (entity, seq);
CREATE INDEX IF NOT EXISTS message_due ON message (entity, available_us);
CREATE INDEX IF NOT EXISTS message_tried ON message (entity, delivery_count) WHERE delivery_count > 0;
CREATE INDEX IF NOT EXISTS message_expiry ON message (entity, expires_us) WHERE expires_us IS NOT NULL;
CREATE INDEX IF NOT EXISTS message_held ON message (entity, session_id, locked_until_us) WHERE locked_until_us IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS message_lock ON message (lock_token) WHERE lock_token IS NOT NULL;
CREATE TABLE IF NOT EXISTS seen (entity TEXT, message_id TEXT, until_us INTEGER, PRIMARY KEY (entity, message_id));
CREATE TABLE IF NOT EXISTS session (
  entity TEXT, session_id TEXT, token TEXT, locked_until_us INTEGER, PRIMARY KEY (entity, session_id));
"""
_AVAILABLE = "entity = :e AND available_us <= :now AND (locked_until_us IS NULL OR locked_until_us <= :now)"
_EPOCH_AT = datetime(1970, 1, 1, tzinfo=UTC)
_ENVELOPE = tuple(
    one.name
    for one in fields(OutgoingMessage)
    if one.name not in ("body", "message_id", "session_id", "scheduled_at", "properties")
)
"""What of a message is kept as one JSON document; the rest has columns, or is written beside it."""


class SqliteQueueBroker:
    """Implements `queues.QueueBroker`. `now` returns aware UTC."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._now = now
        self._known: dict[str, EntityOptions] = {}
        self._wakers: dict[str, list[tuple[str | None, Callable[[], None]]]] = defaultdict(list)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self.transactions = Transactions(self._db)
        self._lock = self.transactions.lock
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._prepare(self._db)
        self._time = QueueTime(self._db, self.transactions)

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file; the broker is unusable afterwards."""
        with self._lock:
            if self.transactions.group is not None:
                self.transactions.commit(self.transactions.group)
            self._db.close()

    # -- entities

    def declare(self, name: str, options: EntityOptions | None = None) -> None:
        """See `QueueBroker.declare`."""
        checked_name(name)
        with self._transaction():
            row = self._db.execute("SELECT * FROM entity WHERE name = ?", (name,)).fetchone()
            if row is not None and row["options"] is None:
                raise QueueError("queue.conflict", f"{name!r} is a topic")
            if row is not None and options is None:
                return
            chosen = options or EntityOptions()
            if row is not None and json.loads(row["options"])["sessions"] != chosen.sessions:
                raise QueueError("queue.conflict", f"{name!r} exists with another sessions setting")
            topic = topic_of(name)
            if topic is not None:
                self._insert_topic(topic)
            self._db.execute(
                "INSERT OR REPLACE INTO entity VALUES (?, ?, ?)", (name, topic, json.dumps(asdict(chosen)))
            )
            self._known.clear()

    def declare_topic(self, name: str) -> None:
        """See `QueueBroker.declare_topic`."""
        checked_name(name)
        with self._transaction():
            self._insert_topic(name)

    def _insert_topic(self, name: str) -> None:
        row = self._db.execute("SELECT options FROM entity WHERE name = ?", (name,)).fetchone()
        if row is not None and row["options"] is not None:
            raise QueueError("queue.conflict", f"{name!r} is a queue")
        self._db.execute("INSERT OR IGNORE INTO entity VALUES (?, NULL, NULL)", (name,))

    def _options(self, name: str) -> EntityOptions:
        if name not in self._known:
            self._known[name] = self._read_options(name)
        return self._known[name]

    def _read_options(self, name: str) -> EntityOptions:
        plain = name.removesuffix(DEAD_LETTER_SUFFIX)
        row = self._db.execute("SELECT options FROM entity WHERE name = ?", (plain,)).fetchone()
        if row is None:
            raise QueueError("queue.not_found", f"there is no queue {plain!r}")
        if row["options"] is None:
            raise QueueError("queue.conflict", f"{plain!r} is a topic; receive from a subscription")
        options = EntityOptions(**json.loads(row["options"]))
        # Dead letters are read one by one, whatever the source was, and are never dead-lettered again.
        return replace(options, sessions=False, default_ttl_s=None) if plain != name else options

    # -- sending

    def send(self, name: str, message: OutgoingMessage) -> str:
        """See `QueueBroker.send`."""
        if len(message.body) > MAX_BODY_BYTES:
            raise QueueError("queue.bad_message", f"the body is larger than {MAX_BODY_BYTES} bytes")
        if name.endswith(DEAD_LETTER_SUFFIX):
            raise QueueError("queue.bad_message", "a dead-letter queue cannot be sent to")
        if len(message.message_id) > 128 or len(message.session_id or "") > 128:
            raise QueueError("queue.bad_message", "message and session ids have at most 128 characters")
        message = replace(message, message_id=message.message_id or uuid.uuid4().hex)
        with self._transaction():
            targets = self._targets(name)
            for target in targets:
                self._enqueue(target, message)
        for target in targets:
            self._wake(target, {message.session_id})
        return message.message_id

    def _targets(self, name: str) -> list[str]:
        row = self._db.execute("SELECT options FROM entity WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise QueueError("queue.not_found", f"there is no queue or topic {name!r}")
        if row["options"] is not None:
            return [name]
        rows = self._db.execute("SELECT name FROM entity WHERE topic = ? ORDER BY name", (name,))
        return [row["name"] for row in rows]

    def _enqueue(self, entity: str, message: OutgoingMessage) -> int | None:
        options = self._options(entity)
        if options.sessions and message.session_id is None:
            raise QueueError("queue.bad_message", f"{entity!r} has sessions; the message needs a session_id")
        now_us = self._now_us()
        if options.duplicate_window_s > 0 and self._is_duplicate(entity, message.message_id, options, now_us):
            return None
        available_us = max(now_us, to_us(message.scheduled_at)) if message.scheduled_at else now_us
        lives = [ttl_s for ttl_s in (message.ttl_s, options.default_ttl_s) if ttl_s is not None]
        expires_us = available_us + int(min(lives) * 1_000_000) if lives else None
        envelope = {name: value for name in _ENVELOPE if (value := getattr(message, name)) is not None}
        envelope["properties"] = dict(message.properties)
        envelope["scheduled_us"] = to_us(message.scheduled_at) if message.scheduled_at else None
        made = self._db.execute(
            "INSERT INTO message (entity, message_id, session_id, body, envelope, enqueued_us, available_us, expires_us)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entity,
                message.message_id,
                message.session_id,
                message.body,
                json.dumps(envelope),
                now_us,
                available_us,
                expires_us,
            ),
        )
        return made.lastrowid

    def _is_duplicate(self, entity: str, message_id: str, options: EntityOptions, now_us: int) -> bool:
        self._db.execute("DELETE FROM seen WHERE until_us <= ?", (now_us,))
        until_us = now_us + int(options.duplicate_window_s * 1_000_000)
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (entity, message_id, until_us))
        return added.rowcount == 0

    # -- receiving

    def receive(self, name: str, limit: int = 1, session: SessionLock | None = None) -> list[LockedMessage]:
        """See `QueueBroker.receive`."""
        with self._transaction():
            options = self._options(name)
            if options.sessions and session is None:
                raise QueueError("queue.conflict", f"{name!r} has sessions; accept a session first")
            self._sweep(name, options)
            arguments = {"e": name, "now": self._now_us(), "limit": limit, "s": None}
            condition = _AVAILABLE
            if session is not None:
                self._check_session(session)
                # In-order: nothing of a session is available while an earlier message of it is out.
                condition += (
                    " AND session_id = :s AND NOT EXISTS (SELECT 1 FROM message AS held WHERE held.entity = :e"
                    " AND held.session_id = :s AND held.locked_until_us > :now)"
                )
                arguments["s"] = session.session_id
            rows = self._db.execute(
                f"SELECT * FROM message WHERE {condition} ORDER BY seq LIMIT :limit",  # noqa: S608  # constant text
                arguments,
            ).fetchall()
            return [self._lock_row(row, options, session) for row in rows]

    def _lock_row(self, row: sqlite3.Row, options: EntityOptions, session: SessionLock | None) -> LockedMessage:
        token = str(uuid.uuid4())
        until_us = self._now_us() + int(options.lock_s * 1_000_000)
        if session is not None:
            until_us = max(until_us, to_us(session.locked_until_at))
        self._db.execute(
            "UPDATE message SET lock_token = ?, locked_until_us = ?, delivery_count = delivery_count + 1 WHERE seq = ?",
            (token, until_us, row["seq"]),
        )
        return locked_message(row, token, until_us)

    def _sweep(self, name: str, options: EntityOptions) -> None:
        """Apply what time has done: expiries, and last deliveries whose lock ran out."""
        if name.endswith(DEAD_LETTER_SUFFIX):
            return
        arguments = {"e": name, "now": self._now_us(), "max": options.max_delivery_count}
        tried = (
            f"{_AVAILABLE} AND delivery_count > 0 AND delivery_count >= :max"  # the first of both leads to the index
        )
        spent = self._db.execute(f"SELECT seq FROM message WHERE {tried}", arguments)  # noqa: S608  # constant text
        for row in spent.fetchall():
            self._bury(row["seq"], name, "MaxDeliveryCountExceeded", _SPENT.format(options.max_delivery_count))
        expired = self._db.execute(f"SELECT seq FROM message WHERE {_AVAILABLE} AND expires_us <= :now", arguments)  # noqa: S608  # constant text
        for row in expired.fetchall():
            if options.dead_letter_on_expiry:
                self._bury(row["seq"], name, "TTLExpiredException", "The message expired and was dead lettered.")
            else:
                self._db.execute("DELETE FROM message WHERE seq = ?", (row["seq"],))

    def _bury(self, seq: int, source: str, reason: str, description: str) -> None:
        self._db.execute(
            "UPDATE message SET entity = ?, lock_token = NULL, locked_until_us = NULL, expires_us = NULL, dl_reason = ?,"
            " dl_description = ?, dl_source = ? WHERE seq = ?",
            (source + DEAD_LETTER_SUFFIX, reason, description, source, seq),
        )

    # -- settling

    def complete(self, entity: str, lock_token: str) -> None:
        """See `QueueBroker.complete`."""
        with self._transaction():
            self._db.execute("DELETE FROM message WHERE seq = ?", (self._held(entity, lock_token)["seq"],))

    def abandon(self, entity: str, lock_token: str) -> None:
        """See `QueueBroker.abandon`."""
        with self._transaction():
            row = self._held(entity, lock_token)
            self._db.execute(
                "UPDATE message SET lock_token = NULL, locked_until_us = NULL WHERE seq = ?", (row["seq"],)
            )
            self._sweep(entity, self._options(entity))
        self._wake(entity, {row["session_id"]})

    def dead_letter(self, entity: str, lock_token: str, reason: str, description: str = "") -> None:
        """See `QueueBroker.dead_letter`."""
        with self._transaction():
            self._bury(self._held(entity, lock_token)["seq"], entity, reason, description)

    def renew(self, entity: str, lock_token: str) -> datetime:
        """See `QueueBroker.renew`."""
        with self._transaction():
            row = self._held(entity, lock_token)
            until_us = self._now_us() + int(self._options(entity).lock_s * 1_000_000)
            self._db.execute("UPDATE message SET locked_until_us = ? WHERE seq = ?", (until_us, row["seq"]))
            return from_us(until_us)

    def _held(self, entity: str, lock_token: str) -> sqlite3.Row:
        row = self._db.execute(
            "SELECT * FROM message WHERE entity = ? AND lock_token = ? AND locked_until_us > ?",
            (entity, lock_token, self._now_us()),
        ).fetchone()
        if row is None:
            raise QueueError("queue.lock_lost", "the lock has expired or the message was settled already")
        return row  # type: ignore[no-any-return]  # sqlite3 rows are untyped

    # -- sessions

    def accept_session(self, name: str, session_id: str | None = None) -> SessionLock | None:
        """See `QueueBroker.accept_session`."""
        with self._transaction():
            options = self._options(name)
            if not options.sessions:
                raise QueueError("queue.conflict", f"{name!r} has no sessions")
            self._sweep(name, options)
            now_us = self._now_us()
            free = (
                "NOT EXISTS (SELECT 1 FROM session WHERE entity = :e AND session.session_id = message.session_id"
                " AND locked_until_us > :now)"
            )
            chosen = " AND session_id = :s" if session_id is not None else ""
            row = self._db.execute(
                f"SELECT session_id FROM message WHERE {_AVAILABLE} AND {free}{chosen} ORDER BY seq LIMIT 1",  # noqa: S608  # constant text
                {"e": name, "now": now_us, "s": session_id},
            ).fetchone()
            if row is None:
                return None
            lock = SessionLock(
                name, row["session_id"], str(uuid.uuid4()), from_us(now_us + int(options.lock_s * 1_000_000))
            )
            self._db.execute(
                "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?)",
                (name, lock.session_id, lock.token, to_us(lock.locked_until_at)),
            )
            return lock

    def renew_session(self, lock: SessionLock) -> SessionLock:
        """See `QueueBroker.renew_session`; messages received under the session are renewed with it."""
        with self._transaction():
            self._check_session(lock)
            now_us = self._now_us()
            until_us = now_us + int(self._options(lock.entity).lock_s * 1_000_000)
            self._db.execute("UPDATE session SET locked_until_us = ? WHERE token = ?", (until_us, lock.token))
            self._db.execute(
                "UPDATE message SET locked_until_us = ? WHERE entity = ? AND session_id = ? AND locked_until_us > ?",
                (until_us, lock.entity, lock.session_id, now_us),
            )
            return replace(lock, locked_until_at=from_us(until_us))

    def release_session(self, lock: SessionLock) -> None:
        """See `QueueBroker.release_session`."""
        with self._transaction():
            gone = self._db.execute("DELETE FROM session WHERE token = ?", (lock.token,))
            if gone.rowcount:
                self._db.execute(
                    "UPDATE message SET lock_token = NULL, locked_until_us = NULL WHERE entity = ? AND session_id = ?",
                    (lock.entity, lock.session_id),
                )
        self._wake(lock.entity, {lock.session_id})

    def _check_session(self, lock: SessionLock) -> None:
        row = self._db.execute(
            "SELECT 1 FROM session WHERE token = ? AND locked_until_us > ?", (lock.token, self._now_us())
        ).fetchone()
        if row is None:
            raise QueueError("queue.lock_lost", "the session lock has expired")

    # -- looking

    def counts(self, name: str) -> EntityCounts:
        """See `QueueBroker.counts`."""
        with self._transaction():
            self._sweep(name, self._options(name))
            row = self._db.execute(
                "SELECT COALESCE(SUM(entity = :e AND available_us <= :now), 0) AS active,"
                " COALESCE(SUM(entity = :e AND available_us > :now AND available_us < :never), 0) AS scheduled,"
                " COALESCE(SUM(entity = :e AND locked_until_us > :now), 0) AS locked,"
                " COALESCE(SUM(entity = :d), 0) AS dead FROM message WHERE entity IN (:e, :d)",
                {"e": name, "d": name + DEAD_LETTER_SUFFIX, "now": self._now_us(), "never": NEVER_US},
            ).fetchone()
            return EntityCounts(row["active"], row["scheduled"], row["locked"], row["dead"])

    def next_due_at(self, name: str) -> datetime | None:
        """See `QueueBroker.next_due_at`."""
        with self._lock:
            now_us = self._now_us()
            row = self._db.execute(
                "SELECT MIN(due) AS due FROM ("
                " SELECT MIN(available_us) AS due FROM message WHERE entity = :e AND available_us > :now"
                " AND available_us < :never UNION ALL"
                " SELECT MIN(locked_until_us) FROM message WHERE entity = :e AND locked_until_us > :now UNION ALL"
                " SELECT MIN(locked_until_us) FROM session WHERE entity = :e AND locked_until_us > :now)",
                {"e": name, "now": now_us, "never": NEVER_US},
            ).fetchone()
        return from_us(row["due"]) if row["due"] is not None else None

    def on_available(self, name: str, wake: Callable[[], None], session_id: str | None = None) -> Callable[[], None]:
        """See `QueueBroker.on_available`."""
        waiting = session_id, wake
        self._wakers[name].append(waiting)
        return lambda: self._wakers[name].remove(waiting)

    def _wake(self, entity: str, sessions: set[str | None]) -> None:
        """Wake who waits for any message, or for one of these sessions: not everybody for each message."""
        for wanted, wake in list(self._wakers.get(entity, ())):
            if wanted is None or wanted in sessions:
                wake()

    # -- plumbing

    def _transaction(self) -> AbstractContextManager[None]:
        self._time.heed(self._now_us())
        return self.transactions.one()

    def _now_us(self) -> int:
        return to_us(self._now())


_SPENT = "Message could not be consumed after {} delivery attempts."


def to_us(moment_at: datetime) -> int:
    """Microseconds since 1970."""
    return (moment_at - _EPOCH_AT) // timedelta(microseconds=1)


def from_us(value_us: int) -> datetime:
    """The instant that ``to_us`` made a number of."""
    return _EPOCH_AT + timedelta(microseconds=value_us)


def locked_message(row: sqlite3.Row, token: str, until_us: int) -> LockedMessage:
    """A row of the message table under a lock that it is about to get."""
    envelope = json.loads(row["envelope"])
    scheduled_us = envelope.pop("scheduled_us")
    message = OutgoingMessage(
        body=row["body"],
        message_id=row["message_id"],
        session_id=row["session_id"],
        scheduled_at=from_us(scheduled_us) if scheduled_us is not None else None,
        **envelope,
    )
    return LockedMessage(
        sequence_number=row["seq"],
        entity=row["entity"],
        message=message,
        enqueued_at=from_us(row["enqueued_us"]),
        expires_at=from_us(row["expires_us"]) if row["expires_us"] is not None else None,
        delivery_count=row["delivery_count"] + 1,
        lock_token=token,
        locked_until_at=from_us(until_us),
        dead_letter_reason=row["dl_reason"],
        dead_letter_description=row["dl_description"],
        dead_letter_source=row["dl_source"],
    )
