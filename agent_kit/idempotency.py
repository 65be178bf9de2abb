"""Deliver twice, do once: which calls are in flight and which have succeeded, in one SQLite file.

(tenant, key) is claimed before a capability runs and settled after it. Last words are answered again for at least 24 hours:
successes, and that a call was cut off after it may have had its effect. A failure frees the key, so a retry runs again, and is
only remembered for a while for callers who come back to ask. A claim is a lease with a fencing token: if its process dies the
lease runs out, and a late finisher cannot settle what somebody else has claimed or concluded since. Who claims says what is to be
answered when it dies in the middle (``if_lost``); without that a claim that was lost is free. A store that opens a file nobody
else uses settles the claims that a dead process left, so a restart does not wait for leases.

SQLite calls take fractions of a millisecond on a local file and run in the caller's thread.
"""

from __future__ import annotations

import fcntl
import secrets
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

RETENTION = timedelta(hours=25)
"""Successes are answered again for a day; the extra hour covers clocks that differ."""
FAILURES_KEPT = timedelta(minutes=15)
"""How long who lost the connection can still learn that the execution failed."""
_SWEEP_EVERY = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS executions (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    token TEXT NOT NULL,
    response BLOB,
    until REAL NOT NULL,
    failed INTEGER NOT NULL DEFAULT 0,
    if_lost BLOB,
    PRIMARY KEY (tenant_id, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS executions_until ON executions (until);
"""
_CONCLUDE = (
    "UPDATE executions SET response = ?, until = ? WHERE tenant_id = ? AND key = ? AND token = ? AND response IS NULL"
)
_FAIL = (
    "UPDATE executions SET response = ?, until = ?, failed = 1 "
    "WHERE tenant_id = ? AND key = ? AND token = ? AND response IS NULL"
)
_ADDED = {"failed": "INTEGER NOT NULL DEFAULT 0", "if_lost": "BLOB"}
"""Columns that files of earlier builds do not have."""
_CLAIM = "INSERT OR REPLACE INTO executions (tenant_id, key, request_sha256, token, until, if_lost) VALUES (?, ?, ?, ?, ?, ?)"
_LOSE = "UPDATE executions SET response = if_lost, until = ? WHERE response IS NULL AND if_lost IS NOT NULL"
_RELEASE = "DELETE FROM executions WHERE tenant_id = ? AND key = ? AND token = ? AND response IS NULL"
_RENEW = "UPDATE executions SET until = ? WHERE tenant_id = ? AND key = ? AND token = ? AND response IS NULL"
_SHORTEN = "UPDATE executions SET until = ? WHERE tenant_id = ? AND key = ? AND response IS NULL"


@dataclass(frozen=True, slots=True)
class Claimed:
    """The caller may execute, and settles with ``token``."""

    token: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same call has had its last word before; this was its answer."""

    response: bytes


@dataclass(frozen=True, slots=True)
class InFlight:
    """The same call is being executed; its lease runs out in ``for_s`` seconds."""

    for_s: float


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key belongs to another request."""


Claim = Claimed | Replayed | InFlight | Mismatch


class IdempotencyStore:
    """Claims and stored outcomes. ``path`` None keeps them in memory (for tests and throw-away agents)."""

    def __init__(self, path: Path | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._guard = threading.Lock()
        self._claims = 0
        self._lock_file: IO[bytes] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=10)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        known = {column[1] for column in self._db.execute("PRAGMA table_info(executions)")}
        for name in _ADDED.keys() - known:
            self._db.execute(f"ALTER TABLE executions ADD COLUMN {name} {_ADDED[name]}")
        if path is not None:
            self._free_orphans(path.with_name(path.name + ".lock"))

    def _free_orphans(self, lock_path: Path) -> None:
        """Every open store holds a shared lock. Who gets the exclusive one is alone: open claims have no living owner."""
        file = lock_path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._db.execute(_LOSE, (self._last_word_until(),))
            self._db.execute("DELETE FROM executions WHERE response IS NULL")
        except BlockingIOError:
            pass  # others are alive; leases will tell
        fcntl.flock(file, fcntl.LOCK_SH)
        self._lock_file = file

    def claim(
        self, tenant_id: str, key: str, request_sha256: str, lease_s: float, if_lost: bytes | None = None
    ) -> Claim:
        """Claim an execution, or learn what became of the first one. ``if_lost`` is its last word when its lease runs out."""
        now = self._now().timestamp()
        with self._guard:
            self._claims += 1
            if self._claims % _SWEEP_EVERY == 1:
                self._db.execute("DELETE FROM executions WHERE until < ? AND response IS NOT NULL", (now,))
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._lose(tenant_id, key, now)
                claim = self._claim(tenant_id, key, request_sha256, now, lease_s, if_lost)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            return claim

    def _lose(self, tenant_id: str, key: str, now: float) -> None:
        """Settle a claim whose lease has run out, where it is not free then: whoever looked first has settled it for all."""
        place = "AND tenant_id = ? AND key = ? AND until <= ?"
        self._db.execute(f"{_LOSE} {place}", (self._last_word_until(), tenant_id, key, now))

    def _last_word_until(self) -> float:
        return (self._now() + RETENTION).timestamp()

    def _claim(
        self, tenant_id: str, key: str, request_sha256: str, now: float, lease_s: float, if_lost: bytes | None
    ) -> Claim:
        row = self._db.execute(
            "SELECT request_sha256, response, until FROM executions WHERE tenant_id = ? AND key = ? AND failed = 0",
            (tenant_id, key),
        ).fetchone()
        if row is not None:
            stored_sha256, response, until = row
            expired = until <= now
            if stored_sha256 != request_sha256 and not (expired and response is not None):
                return Mismatch()
            if response is not None and not expired:
                return Replayed(bytes(response))
            if response is None and not expired:
                if until - now > lease_s:  # the clock was set back; who lives renews it long before
                    until = now + lease_s
                    self._db.execute(_SHORTEN, (until, tenant_id, key))
                return InFlight(until - now)
        token = secrets.token_hex(16)
        self._db.execute(_CLAIM, (tenant_id, key, request_sha256, token, now + lease_s, if_lost))
        return Claimed(token)

    def look(self, tenant_id: str, key: str, request_sha256: str) -> Replayed | InFlight | Mismatch | None:
        """What is known of an execution, success or failure (``Replayed``), without claiming anything."""
        now = self._now().timestamp()
        with self._guard:
            if (row := self._row(tenant_id, key)) is not None and row[1] is None and row[2] <= now:
                self._lose(tenant_id, key, now)
                row = self._row(tenant_id, key)
        if row is None or row[2] <= now:
            return None
        if row[0] != request_sha256:
            return Mismatch()
        return Replayed(bytes(row[1])) if row[1] is not None else InFlight(row[2] - now)

    def _row(self, tenant_id: str, key: str) -> tuple[str, bytes | None, float] | None:
        found: tuple[str, bytes | None, float] | None = self._db.execute(
            "SELECT request_sha256, response, until FROM executions WHERE tenant_id = ? AND key = ?", (tenant_id, key)
        ).fetchone()
        return found

    def fail(self, tenant_id: str, key: str, token: str, response: bytes) -> bool:
        """Free the key of a failed execution and remember how it failed. False when the claim has passed to somebody else."""
        until = (self._now() + FAILURES_KEPT).timestamp()
        with self._guard:
            cursor = self._db.execute(_FAIL, (response, until, tenant_id, key, token))
            return cursor.rowcount == 1

    def conclude(self, tenant_id: str, key: str, token: str, response: bytes) -> bool:
        """Keep the last word on a call. False when the claim has passed to somebody else: such an answer must not be given."""
        with self._guard:
            cursor = self._db.execute(_CONCLUDE, (response, self._last_word_until(), tenant_id, key, token))
            return cursor.rowcount == 1

    def release(self, tenant_id: str, key: str, token: str) -> None:
        """Free a claim whose execution never began. A claim that has passed on stays untouched."""
        with self._guard:
            self._db.execute(
                _RELEASE,
                (tenant_id, key, token),
            )

    def renew(self, tenant_id: str, key: str, token: str, lease_s: float) -> bool:
        """Extend the lease of a claim. False when the claim has passed to somebody else."""
        until = self._now().timestamp() + lease_s
        with self._guard:
            cursor = self._db.execute(_RENEW, (until, tenant_id, key, token))
            return cursor.rowcount == 1

    def close(self) -> None:
        """Close the file. The store must not be used afterwards."""
        with self._guard:
            self._db.close()
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None
