"""Crash-safe storage: one SQLite file, one thread, group commit.

Every change is a function of a connection, run inside a transaction; `Storage.write` returns when it is on disk (WAL,
synchronous=FULL). Changes that arrive together share one fsync: each runs in its own savepoint, so one that fails takes only
itself back. The log is given its length when the file is opened: to sync a file that grows costs twice what overwriting does,
in time and in CPU. Deliberately no queries here (see `records.py`) and no knowledge of what the rows mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SCHEMA_VERSION = 1

LOG_PAGES = 512
"""How long the write-ahead log is made, in pages of 4 KiB; at that length it is written back and begun again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS instances (
  instance_id TEXT PRIMARY KEY, execution_id TEXT NOT NULL, name TEXT NOT NULL, version TEXT,
  status TEXT NOT NULL, suspended INTEGER NOT NULL DEFAULT 0, input_json TEXT,
  output TEXT, output_is_json INTEGER NOT NULL DEFAULT 0,
  custom_status_json TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
  parent_id TEXT, parent_execution_id TEXT, parent_task_id INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS instances_by_created ON instances (created_at, instance_id);
CREATE INDEX IF NOT EXISTS instances_by_status ON instances (status);
CREATE TABLE IF NOT EXISTS history (
  instance_id TEXT NOT NULL, chunk INTEGER NOT NULL, events TEXT NOT NULL, PRIMARY KEY (instance_id, chunk)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, instance_id TEXT NOT NULL, execution_id TEXT, event TEXT NOT NULL, seen_at INTEGER
);
CREATE INDEX IF NOT EXISTS inbox_by_instance ON inbox (instance_id, id);
CREATE TABLE IF NOT EXISTS work (
  instance_id TEXT NOT NULL, execution_id TEXT NOT NULL, task_id INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
  input TEXT, PRIMARY KEY (instance_id, execution_id, task_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS timers (
  instance_id TEXT NOT NULL, execution_id TEXT NOT NULL, task_id INTEGER NOT NULL, fire_at TEXT NOT NULL,
  PRIMARY KEY (instance_id, execution_id, task_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entities (
  entity_id TEXT PRIMARY KEY, present INTEGER NOT NULL, state TEXT, updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entity_inbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, entity_id TEXT NOT NULL, operation TEXT NOT NULL, input TEXT NOT NULL,
  request_id TEXT, caller_id TEXT, caller_execution_id TEXT
);
CREATE INDEX IF NOT EXISTS entity_inbox_by_entity ON entity_inbox (entity_id, id);
"""


class StorageError(Exception):
    """The file cannot be used: newer schema, closed storage, or not a database of this host."""


class Storage:
    """One SQLite file with one owning thread.

    `write(change)` and `read(query)` are awaitable from the event loop. Reads run on the same connection and therefore
    see every write that was requested before them.
    """

    _BATCH_LIMIT = 256

    def __init__(self, path: Path | str, *, synchronous: str = "FULL") -> None:
        if synchronous not in ("FULL", "NORMAL", "EXTRA"):
            raise ValueError("synchronous must be FULL, NORMAL or EXTRA")
        self._path, self._synchronous = str(path), synchronous
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Open or create the file. Raises StorageError when it belongs to a newer version of this host."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._serve, name="durable-storage", daemon=True)
        self._thread.start()
        await self.write(lambda connection: None)

    async def close(self) -> None:
        """Finish what was requested and close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run `change` in a transaction; returns its value once that is durable. Its exception undoes only this change."""
        return await self._request(change)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query` after every write requested so far."""
        return await self._request(query)

    async def _request(self, function: Callable[[sqlite3.Connection], T]) -> T:
        if self._thread is None:
            raise StorageError("The durable storage is not open")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(function, loop, future))
        return await future

    def _serve(self) -> None:
        try:
            connection = self._connect()
        except (sqlite3.Error, OSError, StorageError) as err:
            self._refuse_all(err)
            return
        try:
            while (job := self._jobs.get()) is not None:
                batch, closing = [job], False
                while len(batch) < self._BATCH_LIMIT and not closing:
                    try:
                        following = self._jobs.get_nowait()
                    except queue.Empty:
                        break
                    if following is None:
                        closing = True
                    else:
                        batch.append(following)
                _run_batch(connection, batch)
                if closing:
                    return
        finally:
            connection.close()

    def _refuse_all(self, err: Exception) -> None:
        while (job := self._jobs.get()) is not None:
            job.error = StorageError(f"The durable storage cannot be opened: {err}")
            job.deliver()

    def _connect(self) -> sqlite3.Connection:
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=True)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA busy_timeout=5000")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StorageError(f"{self._path} has schema {version}, this host knows up to {SCHEMA_VERSION}")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._stretch_log(connection)
        return connection

    def _stretch_log(self, connection: sqlite3.Connection) -> None:
        """Fill the log with writes that change nothing, unsynced, and begin it again: it keeps its length.

        Nothing is written back while syncing is off, so a loss of power meanwhile loses these writes alone. Where there is no
        room for it the log grows as it is used, as far as it can.
        """
        log = Path(f"{self._path}-wal")
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        if not log.is_file():  # a database in memory
            return
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA synchronous=OFF")
        with contextlib.suppress(sqlite3.OperationalError):
            for _ in range(log.stat().st_size // page_bytes, LOG_PAGES):
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        connection.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")


class _Job:
    __slots__ = ("error", "function", "future", "loop", "value")

    def __init__(
        self,
        function: Callable[[sqlite3.Connection], Any],
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
    ) -> None:
        self.function, self.loop, self.future = function, loop, future
        self.value: Any = None
        self.error: BaseException | None = None

    def deliver(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            # The event loop is gone; nobody is left to tell, and the transaction's fate is on disk.
            return

    def _resolve(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


def _run_batch(connection: sqlite3.Connection, batch: list[_Job]) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        if len(batch) == 1:
            batch[0].value = batch[0].function(connection)
        else:
            for job in batch:
                _run_in_savepoint(connection, job)
        connection.execute("COMMIT")
    except Exception as err:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for job in batch:
            job.error = job.error or err
    for job in batch:
        job.deliver()


def _run_in_savepoint(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT change")
    try:
        job.value = job.function(connection)
    except Exception as err:  # the caller's exception, delivered to the caller
        job.error = err
        connection.execute("ROLLBACK TO change")
    connection.execute("RELEASE change")
