"""Transactions of the queues' file, one by one or several under one commit.

A commit waits for the disk. Whoever speaks to many clients at once (the AMQP door) lets the changes of one turn of its loop go
under one commit, and tells nobody of them before that. Each change stands in a savepoint of its own, so one that fails takes only
itself back. Whoever does not ask for that gets a commit of its own, which takes along what was waiting.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_LOG = logging.getLogger("local_host.queue")


class Group:
    """Changes that become durable together. ``is_open`` until then; ``is_lost`` when their commit failed."""

    def __init__(self) -> None:
        self.is_open, self.is_lost = True, False


class Transactions:
    """The transactions of one connection, from any thread. Changes of one thread never stand between those of another."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.lock = threading.RLock()
        self._group: Group | None = None
        self._is_grouping = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """Do something in one transaction: durable when it ends, except within ``grouped``."""
        with self.lock:
            group = self._group
            if group is None:
                self._db.execute("BEGIN IMMEDIATE")
                group = self._group = Group()
            self._db.execute("SAVEPOINT one")
            try:
                yield
            except BaseException:
                self._take_back(group)
                raise
            else:
                self._db.execute("RELEASE one")
            finally:
                if not self._is_grouping and group.is_open:
                    self.commit(group)

    def _take_back(self, group: Group) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK TO one")
            self._db.execute("RELEASE one")
        else:  # a full disk and the like: SQLite has taken everything back by itself
            group.is_open, group.is_lost, self._group = False, True, None

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """Let what is done within (which may not wait for anything) be committed with the open group, by ``commit``."""
        with self.lock:
            before, self._is_grouping = self._is_grouping, True
            try:
                yield
            finally:
                self._is_grouping = before

    @property
    def group(self) -> Group | None:
        """What waits for a commit."""
        return self._group

    def commit(self, group: Group) -> None:
        """Make a group durable; one that is already is left alone. Raises ``sqlite3.Error`` when it is lost."""
        with self.lock:
            if group.is_open:
                group.is_open, self._group = False, None
                try:
                    self._db.execute("COMMIT")
                except sqlite3.Error:
                    group.is_lost = True
                    with suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                    raise
            if group.is_lost:
                raise sqlite3.OperationalError("what was to be committed is lost")


class Turns:
    """Groups for one event loop: what is changed in one turn of the loop is committed at its end.

    ``after`` is told when everything of a turn is durable, or with what its commit failed.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._waiting: tuple[Group, asyncio.Handle] | None = None
        self._after: list[Callable[[sqlite3.Error | None], None]] = []

    @contextmanager
    def changes(self) -> Iterator[None]:
        """Change something without waiting for anything meanwhile."""
        with self._transactions.grouped():
            if self._waiting is not None and not self._waiting[0].is_open:
                self.commit()  # somebody else has; what is told of it must not wait for what comes now
            try:
                yield
            finally:
                self._join()

    def _join(self) -> None:
        """See to it that the open group is committed at the end of this turn."""
        group = self._transactions.group
        if group is None:
            return
        if self._waiting is not None and not self._waiting[0].is_open:
            self.commit()  # it was lost, and another one has begun
        if self._waiting is None:
            self._waiting = group, asyncio.get_running_loop().call_soon(self.commit)

    @property
    def is_durable(self) -> bool:
        """Whether nothing waits for a commit. Right within ``changes`` too."""
        return self._waiting is None and self._transactions.group is None

    def when_durable(self, tell: Callable[[sqlite3.Error | None], None]) -> None:
        """Call ``tell`` once, after the commit that is to come."""
        self._join()  # now: should the group be lost before this turn is over, nobody could tell that it had been there
        self._after.append(tell)

    def commit(self) -> None:
        """Commit now instead of at the end of the turn."""
        error: sqlite3.Error | None = None
        if self._waiting is not None:
            (group, handle), self._waiting = self._waiting, None
            handle.cancel()
            try:
                self._transactions.commit(group)
            except sqlite3.Error as err:
                _LOG.error("changes of queues are lost: %s", type(err).__name__)
                error = err
        told, self._after = self._after, []
        for tell in told:
            tell(error)


def set_from_anywhere(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event of ``loop`` from any thread; a loop that is closed has nobody left to tell."""
    if asyncio._get_running_loop() is loop:
        event.set()  # waking the loop through its pipe costs more than all the rest
        return
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)
