"""From the event loop to threads and back. One queue, one wake-up of the loop however many answers are ready.

``loop.run_in_executor`` and ``asyncio.wrap_future`` do the same with two futures, two locks and a chain of callbacks for each,
which takes longer than what a store asks of SQLite.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from engine.domain.errors import LivoaError

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Raised:
    """In the place of an answer: what was raised."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Job(Generic[W]):
    """Something to do, and who waits for it. Made on the event loop that waits."""

    work: W
    future: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_wanted(self) -> bool:
        """False once its caller has gone."""
        return not self.future.cancelled()


def answer(answers: Iterable[tuple[Job[Any], Any]]) -> None:
    """Tell the callers, from any thread. A loop that has ended has nobody left who waits."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for job, result in answers:
        by_loop.setdefault(job.future.get_loop(), []).append((job.future, result))
    for loop, ready in by_loop.items():
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_tell, ready)


def _tell(ready: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in ready:
        if future.done():
            continue
        if isinstance(result, Raised):
            future.set_exception(result.error)
        else:
            future.set_result(result)


class Threads:
    """At most ``most`` threads, started when there is work for them, that carry out jobs."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._waiting: queue.SimpleQueue[Job[Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open = 0
        self._closed = False

    def submit(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Hand ``work`` over. Raises ``LivoaError("store.unavailable")`` (503) after ``shutdown``."""
        with self._lock:
            if self._closed:
                raise LivoaError("store.unavailable", "the database is closed", status=503)
            job = Job(work)
            self._open += 1
            if self._open > len(self._threads) < self._most:
                name = f"{self._name}_{len(self._threads)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._waiting.put(job)
        return job.future

    def shutdown(self) -> None:
        """Finish what was handed over, then end the threads."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (job := self._waiting.get()) is not None:
            result: Any = None
            try:
                if job.is_wanted:
                    result = job.work()
            except BaseException as error:
                # Whatever it was, nobody may wait for ever.
                result = Raised(error)
            with self._lock:
                self._open -= 1
            answer([(job, result)])
