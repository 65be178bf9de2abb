"""The times in the queues' file under a clock that is set back: everything in it moves along.

What is in a queue can be received from an instant on, is held until one, and goes at one. Written by a clock that was ahead, a
message that waits would wait for as long as the clock was set back, and so would one whose receiver is gone. Each lasts for what
it had left instead. A clock that is set forwards needs nothing: locks end early, and messages come again.
"""

from __future__ import annotations

import sqlite3

from local_host.queue_commits import Transactions

TOLERATED_US = 1_000_000
"""What a time server puts right is not worth a look at every message."""
NEVER_US = 2**62
"""When a deferred message becomes available: never by itself."""
_MOVED = (
    "UPDATE message SET enqueued_us = enqueued_us - :by, expires_us = expires_us - :by,"
    " locked_until_us = locked_until_us - :by,"
    " available_us = CASE WHEN available_us < :never THEN available_us - :by ELSE available_us END",
    "UPDATE session SET locked_until_us = locked_until_us - :by",
    "UPDATE seen SET until_us = until_us - :by",
)


class QueueTime:
    """Knows the latest time that a queues' file has seen."""

    def __init__(self, db: sqlite3.Connection, transactions: Transactions) -> None:
        self._db, self._transactions = db, transactions
        self._latest_us: int = db.execute("SELECT coalesce(max(enqueued_us), 0) FROM message").fetchone()[0]

    def heed(self, now_us: int) -> None:
        """Call it before a transaction. Moves what is in the file when the clock was set back since."""
        if now_us < self._latest_us - TOLERATED_US:
            with self._transactions.one():
                by_us = self._latest_us - now_us
                if by_us > TOLERATED_US:  # no other thread was first
                    for statement in _MOVED:
                        self._db.execute(statement, {"by": by_us, "never": NEVER_US})
                    self._latest_us = now_us
        elif now_us > self._latest_us:
            self._latest_us = now_us
