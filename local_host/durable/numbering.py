"""The SDK's event numbering, reproduced.

Both sides of the protocol count independently and rely on counting the same things in the same order. One id goes to
every leaf action except waits and continue-as-new, in list order; one to each retry timer when a retryable attempt
fails, and one to each further attempt when that timer fires. After the last attempt there is still one timer (the SDK
surfaces the error only when it fires). Inside one batch the events that take retry ids come first, see `order_batch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from local_host.durable.history import (
    Completion,
    Event,
    OrchestratorCompleted,
    SubFailed,
    TaskFailed,
    TimerFired,
)
from local_host.durable.listing import Leaf


@dataclass(slots=True)
class RetryChain:
    """Progress of one retryable leaf: `attempt` counts from 1; `on_timer` while a retry timer is pending."""

    leaf: Leaf
    attempt: int = 1
    on_timer: bool = False

    @property
    def is_last(self) -> bool:
        """No further attempt will follow the current one."""
        return self.leaf.retry is None or self.attempt >= self.leaf.retry.max_attempts


@dataclass(slots=True)
class Numbering:
    """Counter and retry chains of one execution.

    `after[id]` is the id taken because of the completion of `id` (retry timer after a failure, attempt after a timer);
    `cause` is its inverse.
    """

    next_id: int = 0
    chains: dict[int, RetryChain] = field(default_factory=dict)
    after: dict[int, int] = field(default_factory=dict)
    cause: dict[int, int] = field(default_factory=dict)

    def number(self, leaves: Iterable[Leaf]) -> None:
        """Give ids to newly listed leaves, in list order."""
        for leaf in leaves:
            if leaf.consumes_id:
                leaf.id = self._take()
                if leaf.retry is not None:
                    self.chains[leaf.id] = RetryChain(leaf)

    def takes_id(self, event: Event) -> bool:
        """True when processing `event` makes the SDK take a retry id."""
        match event:
            case TaskFailed(task_id=task_id) | SubFailed(task_id=task_id):
                return task_id in self.chains
            case TimerFired(timer_id=timer_id):
                chain = self.chains.get(timer_id)
                return chain is not None and not chain.is_last
            case _:
                return False

    def order_batch(self, batch: Sequence[Completion]) -> list[Completion]:
        """Stable order with the id-taking events in front.

        The SDK takes ids for user code's new actions while it processes a batch, the host learns of those actions only
        afterwards; with retry events first both count alike.
        """
        return sorted(batch, key=lambda event: not self.takes_id(event))

    def on_event(self, event: Event) -> None:
        """Advance the chains for one completion event, taking the id it takes."""
        match event:
            case TaskFailed(task_id=done) | SubFailed(task_id=done):
                if chain := self.chains.pop(done, None):
                    chain.on_timer = True
                    self._follow(done, chain)
            case TimerFired(timer_id=done):
                chain = self.chains.pop(done, None)
                if chain is not None and not chain.is_last:
                    chain.on_timer = False
                    chain.attempt += 1
                    self._follow(done, chain)
            case _:
                pass

    def _follow(self, done: int, chain: RetryChain) -> None:
        new_id = self._take()
        self.after[done] = new_id
        self.cause[new_id] = done
        self.chains[new_id] = chain

    def _take(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    @classmethod
    def rebuilt(cls, events: Iterable[Event], leaves: Sequence[Leaf]) -> Numbering:
        """Number a replayed list as it was numbered when it grew, episode by episode.

        `OrchestratorCompleted.listed` says how many leaves each recorded episode had listed.
        """
        numbering, numbered = cls(), 0
        for event in events:
            if isinstance(event, OrchestratorCompleted):
                listed = numbered if event.listed is None else max(event.listed, numbered)
                numbering.number(leaves[numbered:listed])
                numbered = min(listed, len(leaves))
            else:
                numbering.on_event(event)
        numbering.number(leaves[numbered:])
        return numbering
