"""What goes wrong on the way to the store: throttling, unavailability, and writes whose answer is lost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["throttled", "retry_with", "unavailable", "lost_answer", "lost_connection", "timed_out"]
"""``throttled``: 429 with a time to wait. ``retry_with``: 449. ``unavailable``: 503. None of them does anything.
``lost_answer``: carried out, and answered with 408. ``lost_connection``: carried out, and the connection ends without an answer.
``timed_out``: 408 and not carried out."""


@dataclass
class Fault:
    """Strikes the next ``times`` requests whose operation begins with ``operation``.

    Operations are ``create``, ``upsert``, ``replace``, ``delete``, ``read``, ``query`` and ``batch``, each followed by ``:`` and
    the container. ``skip`` requests pass first.
    """

    kind: Kind
    operation: str
    times: int = 1
    skip: int = 0
    retry_after_ms: int = 1


@dataclass
class Faults:
    """The faults to come, and what has struck."""

    pending: list[Fault] = field(default_factory=list)
    struck: list[tuple[Kind, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        """Let it happen."""
        with self._lock:
            self.pending.append(fault)

    def next_for(self, operation: str) -> Fault | None:
        """The fault that strikes this request."""
        with self._lock:
            for fault in self.pending:
                if not operation.startswith(fault.operation) or fault.times <= 0:
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                self.struck.append((fault.kind, operation))
                return fault
        return None
