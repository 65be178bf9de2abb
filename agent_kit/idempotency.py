"""Deliver twice, do once: which calls are in flight and which have succeeded, in one SQLite file.

(tenant, key) is claimed before a capability runs and settled after it. Successes are answered again for at least 24 hours, and so
is that a call was stopped after it had begun, because it may have had its effect; a failure frees the key, so a retry runs again,
and is only remembered for a while for callers who come back to ask. A claim is a
lease with a fencing token: if its process dies the lease runs out, and a late finisher cannot settle what somebody else has
claimed since. A store that opens a file nobody else uses frees the claims that a dead process left, so a restart does not wait
for leases.

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
_ADD_FAILED = "ALTER TABLE executions ADD COLUMN failed INTEGER NOT NULL DEFAULT 0"
_RELEASE = "DELETE FROM executions WHERE tenant_id = ? AND key = ? AND token = ? AND response IS NULL"
_RENEW = "UPDATE executions SET until = ? WHERE tenant_id = ? AND key = ? AND token = ? AND response IS NULL"


@dataclass(frozen=True, slots=True)
class Claimed:
    """The caller may execute, and settles with ``token``."""

    token: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same call succeeded, or was stopped, before; this was its answer."""

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
        if "failed" not in {column[1] for column in self._db.execute("PRAGMA table_info(executions)")}:
            self._db.execute(_ADD_FAILED)  # a file of before failures were kept
        if path is not None:
            self._free_orphans(path.with_name(path.name + ".lock"))

    def _free_orphans(self, lock_path: Path) -> None:
        """Every open store holds a shared lock. Who gets the exclusive one is alone: open claims have no living owner."""
        file = lock_path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._db.execute("DELETE FROM executions WHERE response IS NULL")
        except BlockingIOError:
            pass  # others are alive; leases will tell
        fcntl.flock(file, fcntl.LOCK_SH)
        self._lock_file = file

    def claim(self, tenant_id: str, key: str, request_sha256: str, lease_s: float) -> Claim:
        """Claim an execution, or learn what became of the first one."""
        now = self._now().timestamp()
        with self._guard:
            self._claims += 1
            if self._claims % _SWEEP_EVERY == 1:
                self._db.execute("DELETE FROM executions WHERE until < ? AND response IS NOT NULL", (now,))
            self._db.execute("BEGIN IMMEDIATE")
            try:
                claim = self._claim(tenant_id, key, request_sha256, now, lease_s)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            return claim

    def _claim(self, tenant_id: str, key: str, request_sha256: str, now: float, lease_s: float) -> Claim:
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
                return InFlight(until - now)
        token = secrets.token_hex(16)
        self._db.execute(
            "INSERT OR REPLACE INTO executions VALUES (?, ?, ?, ?, NULL, ?, 0)",
            (tenant_id, key, request_sha256, token, now + lease_s),
        )
        return Claimed(token)

    def look(self, tenant_id: str, key: str, request_sha256: str) -> Replayed | InFlight | Mismatch | None:
        """What is known of an execution, success or failure (``Replayed``), without claiming anything."""
        now = self._now().timestamp()
        with self._guard:
            row = self._db.execute(
                "SELECT request_sha256, response, until FROM executions WHERE tenant_id = ? AND key = ? AND until > ?",
                (tenant_id, key, now),
            ).fetchone()
        if row is None:
            return None
        if row[0] != request_sha256:
            return Mismatch()
        return Replayed(bytes(row[1])) if row[1] is not None else InFlight(row[2] - now)

    def fail(self, tenant_id: str, key: str, token: str, response: bytes) -> bool:
        """Free the key of a failed execution and remember how it failed. False when the claim has passed to somebody else."""
        until = (self._now() + FAILURES_KEPT).timestamp()
        with self._guard:
            cursor = self._db.execute(_FAIL, (response, until, tenant_id, key, token))
            return cursor.rowcount == 1

    def conclude(self, tenant_id: str, key: str, token: str, response: bytes) -> bool:
        """Keep the last word on a call. False when the claim has passed to somebody else: such an answer must not be given."""
        until = (self._now() + RETENTION).timestamp()
        with self._guard:
            cursor = self._db.execute(
                _CONCLUDE,
                (response, until, tenant_id, key, token),
            )
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
