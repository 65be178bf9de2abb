"""Group commit for SQLite: transactions that wait for the one writer are carried out together and made durable by one sync.

A sync costs milliseconds and SQLite has one writer, so without this a fan-out of steps queues for the disk, one sync each. Each
transaction stands in a savepoint of its own: one that fails takes nothing with it and nothing down. Nobody hears of success
before the commit.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from engine.domain.errors import LivoaError

MAX_GROUP = 64
"""Most transactions of one commit: bounds how long the first of them waits."""
MAX_TRIES_EACH = 3
"""How often one transaction is tried within its group: its first failure may be over what the group itself just wrote."""

Work = Callable[[Connection], Any]
Together = Callable[[Work], Any]
"""Carries a function out in one transaction and commits it, trying again when it lost a race."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    work: Work
    future: Future[Any]


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


class GroupCommit:
    """One thread that commits what waits for it. ``together`` is the database's own transaction with its retries."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, work: Work) -> Future[Any]:
        """Queue a transaction. The future ends after the commit that holds it, or with what it raised."""
        future: Future[Any] = Future()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="livoa-sql-write", daemon=True)
                self._thread.start()
            self._waiting.put(_Waiting(work, future))
        return future

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
                self._commit([one for one in group if one.future.set_running_or_notify_cancel()])
            if ended:
                return

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        group: list[_Waiting] = []
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

    def _commit(self, group: Sequence[_Waiting]) -> None:
        if not group:
            return
        alone = len(group) == 1
        try:
            results = self._together(lambda connection: [_one(connection, each.work, alone) for each in group])
        except BaseException as error:
            # Whatever it was, nobody may wait for ever.
            results = [_Raised(error)] * len(group)
        for each, result in zip(group, results, strict=True):
            if isinstance(result, _Raised):
                each.future.set_exception(result.error)
            else:
                each.future.set_result(result)


def _one(connection: Connection, work: Work, alone: bool) -> Any:
    """One transaction of a group: its result, or what it raised. Alone it needs no savepoint.

    A failing database (not a failing transaction) is raised: that fails the group, which the database then tries again.
    """
    if alone:
        return work(connection)
    for _ in range(MAX_TRIES_EACH):
        try:
            with connection.begin_nested():
                return work(connection)
        except IntegrityError:
            continue
        except (SQLAlchemyError, sqlite3.Error):
            raise
        except Exception as error:
            return _Raised(error)
    return _Raised(LivoaError("store.busy", "the write kept meeting another one", status=503, retry_after_s=1))
