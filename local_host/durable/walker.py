"""How the extension and the Durable Task Framework walk the SDK's action list. Pure: no clock, no I/O.

Top-level actions are taken strictly one after the other; each is scheduled whole (all its children) and awaited before
the next one is looked at. Hence head-of-line blocking: with `WhenAny[A,B]`, `WhenAny[C]`, `WhenAny[D]`, D is not
scheduled before C ends. A cancelled timer counts as finished at once (it is created all the same, and its TimerFired
still arrives). WhenAll waits for all children, also after a failure. Source: reading of both code bases; the SDK itself
moves on earlier, which is exactly the difference this module exists to reproduce.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from local_host.durable.history import (
    Event,
    EventRaised,
    EventSent,
    SubCompleted,
    SubFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from local_host.durable.listing import Group, Leaf, Listing, Node
from local_host.durable.numbering import Numbering, RetryChain
from local_host.durable.protocol import ContinueAsNew, CreateTimer, EntityOperation, WaitForEvent


class Role(Enum):
    """Why an id was taken."""

    ACTION = "action"
    RETRY_TIMER = "retry timer"
    ATTEMPT = "further attempt"


@dataclass(frozen=True, slots=True)
class Scheduled:
    """New work: create the event for `id`, then dispatch. `is_last_timer` marks the timer after the last attempt."""

    id: int
    leaf: Leaf
    role: Role
    is_last_timer: bool = False


class IdSource(Protocol):
    """Where ids come from: the SDK's numbering (normal operation) or a counter of our own (strict re-walk)."""

    def for_leaf(self, leaf: Leaf) -> int:
        """Id of a leaf that is being scheduled."""
        ...

    def after(self, done: int) -> int:
        """Id taken because `done` completed (retry timer or further attempt)."""
        ...


@dataclass(frozen=True, slots=True)
class SdkIds:
    """Ids as the SDK counted them."""

    numbering: Numbering

    def for_leaf(self, leaf: Leaf) -> int:
        assert leaf.id is not None, "a leaf is numbered before it is walked"
        return leaf.id

    def after(self, done: int) -> int:
        return self.numbering.after[done]


@dataclass(slots=True)
class FrameworkIds:
    """Ids as the Durable Task Framework counts them: one counter, in the order its own walk schedules."""

    next_id: int = 0

    def for_leaf(self, leaf: Leaf) -> int:
        return self._take()

    def after(self, done: int) -> int:
        return self._take()

    def _take(self) -> int:
        self.next_id += 1
        return self.next_id - 1


@dataclass(slots=True)
class Walk:
    """State of the walk over one `Listing`.

    `open` maps an id to the leaf it serves while it is pending; `reached_end` is true when every listed top-level
    action has been passed; `continue_as_new` is set once the walk has come to that action.
    """

    listing: Listing
    ids: IdSource
    position: int = 0
    open: dict[int, Leaf] = field(default_factory=dict)
    scheduled: list[Scheduled] = field(default_factory=list)
    continue_as_new: ContinueAsNew | None = None
    _entered: int = 0
    _done: set[int] = field(default_factory=set)
    _remaining: dict[int, int] = field(default_factory=dict)
    _chains: dict[int, RetryChain] = field(default_factory=dict)
    _timers: set[int] = field(default_factory=set)
    _waits: dict[str, list[Leaf]] = field(default_factory=dict)
    _buffered: dict[str, int] = field(default_factory=dict)
    _requests: dict[str, int] = field(default_factory=dict)

    @property
    def reached_end(self) -> bool:
        """Nothing listed is left to schedule or await."""
        return self.position >= len(self.listing.tops)

    def has_open_tasks(self) -> bool:
        """Whether the framework would keep the instance from completing.

        Activities, sub-orchestrations and timers count; entity calls and waits do not, and a timer stops counting when
        it is cancelled, also if that happens after it was scheduled.
        """
        return any(not isinstance(leaf.action, EntityOperation) and not leaf.cancelled for leaf in self.open.values())

    def take_scheduled(self) -> list[Scheduled]:
        """The work scheduled since the last call."""
        taken, self.scheduled = self.scheduled, []
        return taken

    def advance(self) -> None:
        """Walk on until the current action blocks or the list ends."""
        tops = self.listing.tops
        while self.position < len(tops):
            top = tops[self.position]
            if self._entered == self.position:
                self._entered += 1
                self._enter(top)
            if top.node not in self._done:
                return
            self.position += 1

    def cancel(self, leaf: Leaf) -> None:
        """A timer's `isCanceled` turned true."""
        if leaf.cancelled:
            return
        leaf.cancelled = True
        if self._is_entered(leaf):
            self._finish(leaf)

    def _is_entered(self, leaf: Leaf) -> bool:
        return leaf.node in self._timers

    def _enter(self, node: Node) -> None:
        if isinstance(node, Leaf):
            self._schedule(node)
            return
        self._remaining[node.node] = len(node.children)
        for child in node.children:
            self._enter(child)
        if not node.children:
            self._finish(node)

    def _schedule(self, leaf: Leaf) -> None:
        match leaf.action:
            case ContinueAsNew() as action:
                self.continue_as_new = action
                self._finish(leaf)
            case WaitForEvent(name=name):
                self._await_event(name, leaf)
            case EntityOperation(signal=True):
                self._emit(self.ids.for_leaf(leaf), leaf, Role.ACTION)
                self._finish(leaf)
            case _:
                task_id = self.ids.for_leaf(leaf)
                self.open[task_id] = leaf
                if leaf.retry is not None:
                    self._chains[task_id] = RetryChain(leaf)
                self._emit(task_id, leaf, Role.ACTION)
                if isinstance(leaf.action, CreateTimer):
                    self._timers.add(leaf.node)
                    if leaf.cancelled:
                        self._finish(leaf)

    def _await_event(self, name: str, leaf: Leaf) -> None:
        if self._buffered.get(name, 0) > 0:
            self._buffered[name] -= 1
            self._finish(leaf)
        else:
            self._waits.setdefault(name, []).append(leaf)

    def _emit(self, task_id: int, leaf: Leaf, role: Role, is_last_timer: bool = False) -> None:
        self.scheduled.append(Scheduled(task_id, leaf, role, is_last_timer))

    def _finish(self, node: Node) -> None:
        """Mark a node done and let its ancestors notice."""
        current: Node | None = node
        while current is not None and current.node not in self._done:
            self._done.add(current.node)
            parent: Group | None = self.listing.parents[current.node]
            if parent is None:
                return
            self._remaining[parent.node] -= 1
            if self._remaining[parent.node] > 0 and not parent.any_of:
                return
            current = parent

    def apply(self, event: Event) -> None:
        """Process one history event; an event for something that is not open is ignored, as the framework does."""
        match event:
            case TaskCompleted(task_id=done) | SubCompleted(task_id=done):
                self._complete(done)
            case TaskFailed(task_id=done) | SubFailed(task_id=done):
                self._fail(done)
            case TimerFired(timer_id=done):
                self._fire(done)
            case EventSent(event_id=task_id, request_id=request_id):
                if task_id in self.open:
                    self._requests[request_id] = task_id
            case EventRaised(name=name):
                self._raise(name)
            case _:
                pass

    def _complete(self, done: int) -> None:
        leaf = self.open.pop(done, None)
        if leaf is not None:
            self._chains.pop(done, None)
            self._finish(leaf)

    def _fail(self, done: int) -> None:
        chain = self._chains.pop(done, None)
        if chain is None or chain.on_timer:
            self._complete(done)
            return
        leaf = self.open.pop(done)
        chain.on_timer = True
        timer_id = self.ids.after(done)
        self.open[timer_id], self._chains[timer_id] = leaf, chain
        self._emit(timer_id, leaf, Role.RETRY_TIMER, chain.is_last)

    def _fire(self, done: int) -> None:
        chain = self._chains.pop(done, None)
        if chain is None or not chain.on_timer or chain.is_last:
            self._complete(done)
            return
        leaf = self.open.pop(done)
        chain.on_timer, chain.attempt = False, chain.attempt + 1
        attempt_id = self.ids.after(done)
        self.open[attempt_id], self._chains[attempt_id] = leaf, chain
        self._emit(attempt_id, leaf, Role.ATTEMPT)

    def _raise(self, name: str) -> None:
        if (task_id := self._requests.pop(name, None)) is not None:
            self._complete(task_id)
        elif waiting := self._waits.get(name):
            # Several waits for one name form a stack: the newest gets the event.
            self._finish(waiting.pop())
        else:
            self._buffered[name] = self._buffered.get(name, 0) + 1


def walk_again(listing: Listing, events: Sequence[Event], ids: IdSource) -> tuple[Walk, int | None]:
    """Walk the whole list from scratch over the whole history, as the framework does in every episode.

    Returns the walk and the index of the event during which it reached continue-as-new (-1: before any event, None:
    not reached). External events after that index are carried over into the next generation.
    """
    walk = Walk(listing, ids)
    walk.advance()
    reached_at = -1 if walk.continue_as_new else None
    for index, event in enumerate(events):
        walk.apply(event)
        walk.advance()
        if walk.continue_as_new and reached_at is None:
            reached_at = index
    return walk, reached_at


def not_yet_created(scheduled: Iterable[Scheduled], created: set[int]) -> list[Scheduled]:
    """The scheduled work that has no created event so far."""
    return [item for item in scheduled if item.id not in created]
