"""One execution of an instance, in memory: history, action list, numbering, walk and (warm) the live generator.

Everything here can be rebuilt from the stored history, and is, after a crash, an eviction or a failed commit. `Execution`
answers "what does the SDK say now"; what follows from it is decided in `episodes.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from local_host.durable.determinism import check_prefix, check_recorded
from local_host.durable.executor import (
    Reply,
    TimerLimits,
    WarmInstance,
    WarmUnavailableError,
    Wrapper,
    event_text,
    request_of_texts,
    run_cold,
)
from local_host.durable.history import (
    Created,
    Event,
    EventRaised,
    EventSent,
    ExecutionStarted,
    OrchestratorStarted,
    SubCompleted,
    SubFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
    sdk_events,
)
from local_host.durable.listing import Leaf, Listing
from local_host.durable.numbering import Numbering
from local_host.durable.protocol import CreateTimer
from local_host.durable.records import Instance
from local_host.durable.walker import SdkIds, Walk, not_yet_created, walk_again

_LOG = logging.getLogger("local_host.durable")


@dataclass(slots=True)
class Execution:
    """State between two episodes.

    `outstanding` are ids the SDK still waits for, `requests` open entity requests, `delivered` counts external events given
    to the SDK by name. `ended` is the final reply once user code has returned, raised or continued as new: the SDK is not
    asked again, but the instance may have to wait for open tasks.
    """

    instance: Instance
    wrapper: Wrapper
    use_warm: bool
    timer_limits: TimerLimits | None = None
    events: list[Event] = field(default_factory=list)
    chunk: int = 0
    listing: Listing = field(default_factory=Listing)
    numbering: Numbering = field(default_factory=Numbering)
    walk: Walk = field(init=False)
    created: set[int] = field(default_factory=set)
    outstanding: set[int] = field(default_factory=set)
    requests: set[str] = field(default_factory=set)
    delivered: dict[str, int] = field(default_factory=dict)
    ended: Reply | None = None
    custom_status_json: str | None = None
    started: bool = False
    warm: WarmInstance | None = None
    unfed: list[Event] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _texts_end: int = 0

    def __post_init__(self) -> None:
        self.walk = Walk(self.listing, SdkIds(self.numbering))

    @property
    def is_new(self) -> bool:
        """True until the first episode has run."""
        return not self.started

    @property
    def has_work_to_write(self) -> bool:
        """A rebuilt execution already knows something no episode has recorded: unscheduled work, or its end."""
        return bool(self.walk.scheduled) or self.is_finished()

    def wanted_events(self, name: str) -> int:
        """How many more external events of that name the listed waits can take."""
        return self.listing.waits.get(name, 0) - self.delivered.get(name, 0)

    def restore(self, events: list[Event], chunk: int) -> None:
        """Rebuild from stored history by one full replay.

        Raises NonDeterministicError when the code no longer says what history recorded, ProtocolError when the SDK's
        answer cannot be read, BrokenReplyError when the SDK itself fails.
        """
        self.events, self.chunk = events, chunk
        if not any(isinstance(event, ExecutionStarted) for event in events):
            return
        # A closing OrchestratorStarted marks everything before it as replayed, so user code's `is_replaying` stays true.
        last = next(event for event in reversed(events) if isinstance(event, OrchestratorStarted))
        reply = self._start([OrchestratorStarted(last.at)])
        self.absorb(reply, numbered=False)
        self.numbering = Numbering.rebuilt(events, self.listing.leaves)
        check_recorded(events, self.listing, self.numbering)
        self.walk, _ = walk_again(self.listing, events, SdkIds(self.numbering))
        for event in events:
            self.note(event)
        self.unfed.clear()
        self.walk.scheduled = not_yet_created(self.walk.scheduled, self.created)

    def note(self, event: Event) -> None:
        """Keep the bookkeeping sets in step with one recorded event."""
        match event:
            case ExecutionStarted():
                self.started = True
            case EventSent(event_id=event_id, signal=signal, request_id=request_id):
                self.created.add(event_id)
                self.unfed.append(event)
                if not signal:
                    self.requests.add(request_id)
            case event if isinstance(event, Created):
                self.created.add(event.event_id)
                self.outstanding.add(event.event_id)
            case TaskCompleted(task_id=done) | TaskFailed(task_id=done) | SubCompleted(task_id=done):
                self.outstanding.discard(done)
            case SubFailed(task_id=done) | TimerFired(timer_id=done):
                self.outstanding.discard(done)
            case EventRaised(name=name):
                if name in self.requests:
                    self.requests.discard(name)
                else:
                    self.delivered[name] = self.delivered.get(name, 0) + 1
            case _:
                pass

    def invoke(self, new_events: Sequence[Event]) -> Reply:
        """Run user code over the new events: warm when a live generator exists, else by a full replay."""
        for_sdk = sdk_events(new_events)
        if self.warm is not None:
            # The SDK re-keys an open entity call when it sees its EventSent, so that event must come before the answer.
            reply = self.warm.feed([*self.unfed, *for_sdk])
            self.unfed.clear()
            if reply.broken is None:
                return reply
            _LOG.warning("Orchestrator %s: warm instance gave up (%s); replaying", self.instance.name, reply.broken)
            self.warm, self.use_warm = None, False
        return self._start(for_sdk)

    def _start(self, new_events: Sequence[Event]) -> Reply:
        """A full replay of what is recorded, and of the given events after it."""
        self.unfed.clear()
        item = self.instance
        parent_id = item.parent.instance_id if item.parent else None
        texts = [*self._recorded_texts(), *map(event_text, new_events)]
        request = request_of_texts(texts, item.input_json, item.instance_id, parent_id, self.timer_limits)
        if self.use_warm:
            try:
                warm = WarmInstance(self.wrapper)
                reply = warm.start(request)
                self.warm = warm
                self._texts, self._texts_end = [], 0  # a live generator needs them never again
                return reply
            except WarmUnavailableError as err:
                self.use_warm = False
                _LOG.warning("Orchestrator %s is replayed cold: %s", item.name, err)
        return run_cold(self.wrapper, request)

    def _recorded_texts(self) -> list[str]:
        """`events` as the SDK reads them; only what has been recorded since the last call is made into text."""
        self._texts += map(event_text, sdk_events(self.events[self._texts_end :]))
        self._texts_end = len(self.events)
        return self._texts

    def absorb(self, reply: Reply, *, numbered: bool = True) -> None:
        """Take in a reply: grow the list, number what is new, note cancelled timers, latch the end."""
        if reply.broken is not None:
            raise BrokenReplyError(reply.broken)
        tail: Sequence[dict[str, Any]] = reply.actions
        if not reply.is_tail:
            check_prefix(self.listing.raw, reply.actions)
            tail = reply.actions[len(self.listing.raw) :]
            self._note_cancelled_in(reply.actions)
        for index in reply.cancelled:
            self.walk.cancel(self.listing.leaves[index])
        new_leaves = self.listing.extend(tail)
        if numbered:
            self.numbering.number(new_leaves)
        if reply.custom_status_json is not None:
            self.custom_status_json = reply.custom_status_json
        if reply.done or reply.error is not None:
            self.ended = reply
            self.warm = None

    def _note_cancelled_in(self, raw: Sequence[dict[str, Any]]) -> None:
        known = self.listing.raw
        if list(raw[: len(known)]) == known:
            return
        flags = [flag for item in raw[: len(known)] for flag in _cancel_flags(item)]
        for leaf, cancelled in zip(self.listing.leaves, flags, strict=True):
            if cancelled and isinstance(leaf.action, CreateTimer):
                self.walk.cancel(leaf)
        self.listing.raw[:] = raw[: len(known)]  # parsed for this reply alone, so nobody else changes it

    def walk_on(self, new_events: Sequence[Event]) -> list[Leaf]:
        """Walk with the grown list and the new events; the result is kept in `walk.scheduled`.

        Lists in which the order of events matters are walked from scratch, as the framework does.
        """
        if self.listing.is_order_sensitive:
            self.walk, _ = walk_again(self.listing, [*self.events, *new_events], SdkIds(self.numbering))
        else:
            self.walk.advance()
            for event in new_events:
                self.walk.apply(event)
                self.walk.advance()
        self.walk.scheduled = not_yet_created(self.walk.scheduled, self.created)
        return [item.leaf for item in self.walk.scheduled]

    def is_finished(self) -> bool:
        """User code has ended, the walk has nothing left, and no task holds the instance open."""
        return self.ended is not None and self.walk.reached_end and not self.walk.has_open_tasks()


class BrokenReplyError(Exception):
    """The SDK failed without delivering a state (bad history, undecodable result, misuse of the API)."""


def _cancel_flags(raw: dict[str, Any]) -> list[bool]:
    """`isCanceled` per leaf, in list order (False for leaves that are not timers)."""
    if "compoundActions" in raw:
        return [flag for child in raw["compoundActions"] for flag in _cancel_flags(child)]
    return [bool(raw.get("isCanceled", False))]
