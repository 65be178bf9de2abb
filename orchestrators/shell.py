"""The loop both orchestrators share, and the pool of durable tasks it waits on.

It deliberately decides nothing. What it knows is the durable engine: how tasks are listed so that none blocks another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from engine.domain.names import CANCEL_EVENT, resume_event
from engine.scheduler import MAX_TIMER
from engine.scheduler.commands import (
    Announced,
    AwaitResume,
    Call,
    CancelRequested,
    Command,
    Event,
    Issued,
    Listen,
    Resumed,
    Tick,
    WakeAt,
)

if TYPE_CHECKING:
    from azure.durable_functions import DurableOrchestrationContext

Task = Any
"""A task of the durable SDK, which ships no types."""

NUDGE_MARGIN = timedelta(hours=1)


class State(Protocol):
    """What the loop needs to know of a brain's state."""

    @property
    def is_over(self) -> bool:
        """True when the loop ends."""
        ...


S = TypeVar("S", bound=State)
S_contra = TypeVar("S_contra", bound=State, contravariant=True)


class Calls(Protocol[S_contra]):
    """How one kind of instance turns calls into durable tasks and their results into events."""

    @property
    def deadline_at(self) -> datetime:
        """When the instance is expected to be over at the latest."""
        ...

    def schedule(self, call: Call, state: S_contra) -> Task:
        """A new durable task for ``call``, never one of the SDK's own retrying tasks; None for a call without an answer."""
        ...

    def event(self, call: Call, result: Any, *, crashed: bool, at: datetime) -> Event:
        """What the finished task of ``call`` means."""
        ...


def drive(
    context: DurableOrchestrationContext,
    state: S,
    decide: Callable[[S, datetime], tuple[Command, ...]],
    evolve: Callable[[S, Event], S],
    pool: Pool[S],
    show: Callable[[S], None],
) -> Generator[Task, Task, S]:
    """Run a brain to its end: decide, schedule, await the first of all open tasks, evolve. Or to the end of this history: then
    the state is handed on as it is."""
    while not state.is_over:
        if pool.is_spent(state):
            return (yield from pool.leave(state, evolve))
        now = context.current_utc_datetime
        commands = pool.add(decide(state, now), state)
        state = evolve(state, Issued(commands, now))
        show(state)
        winner = yield pool.first_of_all(now)
        for event in pool.take(winner, context.current_utc_datetime):
            state = evolve(state, event)
    pool.close()
    show(state)
    return state


class Pool(Generic[S]):
    """The open durable tasks of one instance, oldest first: calls, one wake-up, the waits for a cancel and for what is announced.

    The Azure extension walks the list of actions in order and does not look at the next entry before a task of this one is
    done. A `task_any` that adds new tasks while older ones are open would therefore hold back everything listed later until
    one of the *new* tasks ends. The cure is a fresh timer, cancelled at once, last in the list: the extension creates it, sees
    it cancelled and walks on.
    """

    def __init__(self, context: DurableOrchestrationContext, calls: Calls[S]) -> None:
        self._context = context
        self._calls = calls
        self._open: dict[Task, Command | None] = {context.wait_for_external_event(CANCEL_EVENT): None}
        self._wake: Task | None = None
        self._listed = 0

    def is_spent(self, state: S) -> bool:
        """True when this history should end and the state go on in another one. Never, here."""
        return False

    def leave(self, state: S, evolve: Callable[[S, Event], S]) -> Generator[Task, Task, S]:
        """End this history; the state to go on with."""
        raise NotImplementedError("this history is never spent")
        yield

    def add(self, commands: tuple[Command, ...], state: S) -> tuple[Command, ...]:
        """Create a task for each command; a new wake-up replaces the one before. Returns what was scheduled: here, all."""
        for command in commands:
            if isinstance(command, WakeAt):
                self._drop_wake()
                self._wake = self._context.create_timer(command.at)
                self._open[self._wake] = command
            elif isinstance(command, Listen):
                self._open[self._context.wait_for_external_event(command.event)] = command
            elif isinstance(command, AwaitResume):
                self._open[self._context.wait_for_external_event(resume_event(command.number))] = command
            elif (task := self._calls.schedule(command, state)) is not None:
                self._open[task] = command
        return commands

    def first_of_all(self, now: datetime) -> Task:
        """A task that ends with the first open one; yield it."""
        tasks = list(self._open)
        if 0 < self._listed < len(tasks):
            tasks.append(self._nudge(now))
        self._listed = len(self._open)
        return self._context.task_any(tasks)

    def take(self, winner: Task, now: datetime) -> tuple[Event, ...]:
        """Remove a finished task and say what it means. Nothing for a task that is not ours to know.

        That is the nudge: cancelled or not, the engine lets it fire in the end, and then it wins.
        """
        if winner not in self._open:
            return ()
        command = self._open.pop(winner)
        self._listed -= 1
        return (self._meaning(command, winner, now),)

    def _meaning(self, command: Command | None, winner: Task, now: datetime) -> Event:
        if command is None:
            return CancelRequested(now)
        if isinstance(command, WakeAt):
            self._wake = None
            return Tick(max(now, command.at))
        if isinstance(command, Listen):
            return Announced(command.event, now)
        if isinstance(command, AwaitResume):
            return Resumed(command.number, now)
        return self._calls.event(command, winner.result, crashed=isinstance(winner.result, Exception), at=now)

    def close(self) -> None:
        """Cancel the wake-up: an open timer would keep the finished instance alive."""
        self._drop_wake()

    def _drop_wake(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            del self._open[self._wake]
            self._wake = None
            self._listed -= 1

    def _nudge(self, now: datetime) -> Task:
        # Past the deadline, so that it does not wake a live run; within five days, because a longer one turns into a
        # chain of timers whose cancel is never sent.
        timer = self._context.create_timer(min(max(self._calls.deadline_at, now) + NUDGE_MARGIN, now + MAX_TIMER))
        timer.cancel()
        return timer
