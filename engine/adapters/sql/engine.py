"""One database for all stores of a process: opened on first use, every transaction a plain function in a worker thread.

Why threads and not an asynchronous driver: a transaction here is a handful of statements of microseconds each. Handing each
statement to another thread (what aiosqlite does) costs three times the CPU of handing over the whole transaction once
(measured: 2.9 against 0.8 ms for read-insert-update-commit). The event loop is never blocked either way.

SQLite: one file for everything, WAL, foreign keys on, ``synchronous=FULL`` because the audit chain stands in the same file and
a record must survive a power cut before its effect happens. Writers of one process queue for one thread that commits them in
groups, writers of several processes for ``BEGIN IMMEDIATE``. PostgreSQL: transactions lock the row they decide on
(``for_update``).

A transaction that was handed over runs to its end even when the caller is cancelled: every write is idempotent by its key.
"""

from __future__ import annotations

import asyncio
import functools
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from engine.adapters.sql.group_commit import GroupCommit
from engine.adapters.sql.handover import Threads
from engine.adapters.sql.migrations import MIGRATIONS, Migration, is_current, migrate
from engine.adapters.wakeups import Wakeups
from engine.domain.base import iso_utc
from engine.domain.errors import LivoaError
from engine.ports.clock import Clock

T = TypeVar("T")
Work = Callable[[Connection], T]

BUSY_TIMEOUT_S = 5.0
"""How long a SQLite writer waits for a writer of another process."""
MAX_TRIES = 6
"""How often a transaction is tried when it lost a race."""
SQLITE_READERS = 4
POSTGRES_CONNECTIONS = 10
OUTBOX_OPTION = "livoa_outbox"
"""The option of every connection that says whether events go into the outbox too."""
_RETRY_PAUSE_S = 0.01
_SERIALIZATION_STATES = frozenset({"40001", "40P01"})  # PostgreSQL: serialization failure, deadlock


class Database:
    """A database by its address: ``sqlite:///path`` or ``postgresql+psycopg://…``.

    Raises ``LivoaError("settings.invalid")`` for an address it cannot serve. ``wakeups`` tells readers of this process about
    new events; with ``outbox`` those that other systems are told of are put there too, in the same transaction.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        migrations: tuple[Migration, ...] = MIGRATIONS,
        wakeups: Wakeups | None = None,
        outbox: bool = False,
    ) -> None:
        self._url = _driver_url(url)
        self._clock = clock
        self._migrations = migrations
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._migrated = False
        self._closed = False
        self._of_thread = threading.local()
        self._connections: list[Connection] = []
        readers = SQLITE_READERS if self._sqlite else POSTGRES_CONNECTIONS
        # Threads start on first use, so an unused database costs nothing.
        self._readers = Threads(readers, "livoa-sql-read")
        self._group = GroupCommit(lambda work: self._transact(work, True))
        self.wakeups = wakeups or Wakeups()
        self._outbox = outbox

    @property
    def clock(self) -> Clock:
        """The clock of everything that is kept here."""
        return self._clock

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction that only reads. Raises ``LivoaError("store.unavailable")`` (503)."""
        return await self._run(work, immediate=False)

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction; all of it is durable when this returns, or none of it.

        ``work`` may run several times when it loses races. Raises ``LivoaError``: ``store.busy`` (503) when it kept losing,
        ``store.unavailable`` (503) when the database failed.
        """
        if not self._sqlite:
            return await self._run(work, immediate=True)
        self._refuse_closed()
        written: T = await self._group.submit(work)
        return written

    async def dispose(self) -> None:
        """Finish what runs, close all connections. The database cannot be used afterwards."""
        await asyncio.to_thread(self._dispose)

    def _dispose(self) -> None:
        with self._lock:
            self._closed = True
        self._group.shutdown()
        self._readers.shutdown()
        with self._lock:
            for connection in self._connections:  # their threads have ended
                connection.close()
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    async def _run(self, work: Work[T], *, immediate: bool) -> T:
        self._refuse_closed()
        done: T = await self._readers.submit(functools.partial(self._transact, work, immediate))
        return done

    def _refuse_closed(self) -> None:
        if self._closed:
            raise LivoaError("store.unavailable", "the database is closed", status=503)

    def _transact(self, work: Work[T], immediate: bool) -> T:
        for attempt in range(MAX_TRIES):
            try:
                return self._once(self._ready(), work, immediate)
            except (SQLAlchemyError, sqlite3.Error) as err:
                if not _lost_a_race(err):
                    raise LivoaError(
                        "store.unavailable", f"the database failed: {type(err).__name__}", status=503, retry_after_s=1
                    ) from err
                cause = err
            # Apart by chance, so that the losers of one race do not meet again.
            time.sleep(_RETRY_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
        raise LivoaError(
            "store.busy", f"the database was too busy {MAX_TRIES} times in a row", status=503, retry_after_s=1
        ) from cause

    def _once(self, engine: Engine, work: Work[T], immediate: bool) -> T:
        if not self._sqlite:
            with engine.connect() as connection, connection.begin():
                return work(connection)
        connection = self._own_connection(engine)
        with connection.begin():
            # By hand: an event listener on the engine would make every statement pay for looking for listeners.
            driver: Any = connection.connection.driver_connection
            driver.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
            return work(connection)

    def _own_connection(self, engine: Engine) -> Connection:
        """The connection of this thread, which lasts as long as the database: taking one out of the pool takes longer than a
        small transaction."""
        connection: Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None or connection.closed:
            connection = self._of_thread.connection = engine.connect()
            self._connections.append(connection)
        return connection

    def _ready(self) -> Engine:
        if self._engine is not None and self._migrated:
            return self._engine
        with self._lock:
            if self._closed:
                raise LivoaError("store.unavailable", "the database is closed", status=503)
            if self._engine is None:
                self._engine = self._open()
            if not self._migrated:
                # Read first: a process that starts on a busy database must not queue for the one writer to change nothing.
                if not self._once(self._engine, lambda connection: is_current(connection, self._migrations), False):
                    now = iso_utc(self._clock.now())
                    self._once(self._engine, lambda connection: migrate(connection, now, self._migrations), True)
                self._migrated = True
            return self._engine

    def _open(self) -> Engine:
        options: dict[str, Any] = {"hide_parameters": True, "pool_pre_ping": not self._sqlite}
        options["execution_options"] = {OUTBOX_OPTION: self._outbox}
        if not self._sqlite:
            return _open_postgres(self._url, options)
        directory = Path(self._url.database or "").parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as err:
            raise LivoaError(
                "store.unavailable", f"{directory} cannot be made for the database: {err.strerror}", status=503
            ) from err
        engine = create_engine(
            self._url,
            poolclass=QueuePool,
            # Every transaction ends in a commit or a rollback of its own; another one on return finds nothing to do.
            pool_reset_on_return=None,
            pool_size=SQLITE_READERS + 1,
            max_overflow=0,
            # A connection is used by one thread at a time, though not always by the same one.
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
            **options,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        return engine


def _driver_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as err:
        raise _unusable("is not a database address") from err
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise _unusable("must name a file: connections of one memory database do not share it")
        return parsed.set(drivername="sqlite+pysqlite")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise _unusable(f"has the unknown backend {backend}; sqlite and postgresql are served")


def _open_postgres(url: URL, options: dict[str, Any]) -> Engine:
    try:
        return create_engine(url, pool_size=POSTGRES_CONNECTIONS, max_overflow=0, **options)
    except ModuleNotFoundError as err:
        raise _unusable("needs the driver psycopg, which is not installed: pip install 'psycopg[binary]'") from err


def _unusable(problem: str) -> LivoaError:
    return LivoaError("settings.invalid", f"the database address {problem}", status=500)


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    # The driver's own transaction handling begins too late (at the first write); ours is in Database._once.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _lost_a_race(error: Exception) -> bool:
    """True when trying again can help: another writer was first, or holds the database."""
    if isinstance(error, IntegrityError | sqlite3.IntegrityError):
        return True
    # SQLAlchemy wraps the driver's errors, except those of what goes to the driver directly: our BEGIN, prepared statements.
    driver_error = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(driver_error, sqlite3.OperationalError):
        return bool(getattr(driver_error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY)
    return getattr(driver_error, "sqlstate", None) in _SERIALIZATION_STATES
