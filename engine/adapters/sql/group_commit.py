"""Group commit for SQLite: transactions that wait for the one writer are carried out together and made durable by one sync.

A sync costs milliseconds and SQLite has one writer, so without this a fan-out of steps queues for the disk, one sync each. Each
transaction stands in a savepoint of its own: one that fails takes nothing with it and nothing down. Nobody hears of success
before the commit.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from engine.adapters.sql.handover import Job, Raised, answer
from engine.domain.errors import LivoaError

MAX_GROUP = 64
"""Most transactions of one commit: bounds how long the first of them waits."""
MAX_TRIES_EACH = 3
"""How often one transaction is tried within its group: its first failure may be over what the group itself just wrote."""

Work = Callable[[Connection], Any]
Together = Callable[[Work], Any]
"""Carries a function out in one transaction and commits it, trying again when it lost a race."""


class GroupCommit:
    """One thread that commits what waits for it. ``together`` is the database's own transaction with its retries."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self._waiting: queue.SimpleQueue[Job[Work] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, work: Work) -> Future[Any]:
        """Queue a transaction, on the loop that waits for it: ends after the commit that holds it, or with what it raised."""
        job = Job(work)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="livoa-sql-write", daemon=True)
                self._thread.start()
            self._waiting.put(job)
        return job.future

    def shutdown(self) -> None:
        """Finish what was queued, then end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._waiting.put(None)
        if thread is not None:
            thread.join()

    def _serve(self) -> None:
        while True:
            group, ended = self._next_group()
            if group:
                self._commit([job for job in group if job.is_wanted])
            if ended:
                return

    def _next_group(self) -> tuple[list[Job[Work]], bool]:
        group: list[Job[Work]] = []
        entry = self._waiting.get()
        while entry is not None:
            group.append(entry)
            if len(group) == MAX_GROUP:
                return group, False
            try:
                entry = self._waiting.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: Sequence[Job[Work]]) -> None:
        if not group:
            return
        alone = len(group) == 1
        try:
            results = self._together(lambda connection: [_one(connection, each.work, alone) for each in group])
        except BaseException as error:
            # Whatever it was, nobody may wait for ever.
            results = [Raised(error)] * len(group)
        answer(zip(group, results, strict=True))


def _one(connection: Connection, work: Work, alone: bool) -> Any:
    """One transaction of a group: its result, or what it raised. Alone it needs no savepoint.

    A failing database (not a failing transaction) is raised: that fails the group, which the database then tries again.
    """
    if alone:
        return work(connection)
    # By hand: SQLAlchemy takes eighty times as long for a savepoint as SQLite.
    driver: Any = connection.connection.driver_connection
    for _ in range(MAX_TRIES_EACH):
        driver.execute("SAVEPOINT one")
        try:
            result = work(connection)
            driver.execute("RELEASE one")
            return result
        except (IntegrityError, sqlite3.IntegrityError):
            _undo(driver)
        except (SQLAlchemyError, sqlite3.Error):
            raise
        except Exception as error:
            _undo(driver)
            return Raised(error)
    return Raised(LivoaError("store.busy", "the write kept meeting another one", status=503, retry_after_s=1))


def _undo(driver: Any) -> None:
    driver.execute("ROLLBACK TO one")
    driver.execute("RELEASE one")
