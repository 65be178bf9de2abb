"""The action list of one execution, as a tree whose leaves get ids.

The SDK's list is append-only and cumulative; a `Listing` grows with it and remembers the raw form so that a replay can
be compared. It deliberately does not know what has run: that is `walker.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from local_host.durable.protocol import (
    MAX_ACTIONS,
    Action,
    Compound,
    ContinueAsNew,
    CreateTimer,
    LeafAction,
    ProtocolError,
    RetryPolicy,
    WaitForEvent,
    parse_actions,
    retry_of,
)


@dataclass(slots=True, eq=False)
class Leaf:
    """One atomic action. `index` counts leaves in list order, `node` all tree nodes.

    `id` is the SDK's number for it (None for waits and continue-as-new, which consume none). `cancelled` may turn true
    in a later response; the walk therefore always asks the current value.
    """

    index: int
    node: int
    action: LeafAction
    retry: RetryPolicy | None
    id: int | None = None
    cancelled: bool = False

    @property
    def consumes_id(self) -> bool:
        """False for the two kinds of action the numbering skips."""
        return not isinstance(self.action, WaitForEvent | ContinueAsNew)


@dataclass(slots=True, eq=False)
class Group:
    """WhenAny (`any_of`) or WhenAll over the children listed in that one action."""

    node: int
    any_of: bool
    children: tuple[Leaf | Group, ...]


Node = Leaf | Group


@dataclass(slots=True)
class Listing:
    """All top-level actions so far, in order."""

    tops: list[Node] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)
    parents: list[Group | None] = field(default_factory=list)
    waits: dict[str, int] = field(default_factory=dict)
    has_retries: bool = False
    has_repeated_waits: bool = False

    def extend(self, raw_tail: Sequence[Mapping[str, Any]]) -> list[Leaf]:
        """Append wire actions; returns the new leaves. ProtocolError when unreadable or beyond the action limit."""
        first_new = len(self.leaves)
        for action in parse_actions(raw_tail):
            self.tops.append(self._grow(action))
        self.raw.extend(dict(item) for item in raw_tail)
        if len(self.leaves) > MAX_ACTIONS:
            raise ProtocolError(f"The orchestrator scheduled more than {MAX_ACTIONS} actions")
        return self.leaves[first_new:]

    def _grow(self, action: Action) -> Node:
        if isinstance(action, Compound):
            node = len(self.parents)
            self.parents.append(None)
            group = Group(node, action.any_of, tuple(self._grow(child) for child in action.children))
            for child in group.children:
                self.parents[child.node] = group
            return group
        leaf = Leaf(len(self.leaves), len(self.parents), action, retry_of(action))
        self.parents.append(None)
        self.leaves.append(leaf)
        self._note(leaf)
        return leaf

    def _note(self, leaf: Leaf) -> None:
        action = leaf.action
        if leaf.retry is not None:
            self.has_retries = True
        if isinstance(action, CreateTimer):
            leaf.cancelled = action.cancelled
        elif isinstance(action, WaitForEvent):
            count = self.waits.get(action.name, 0) + 1
            self.waits[action.name] = count
            self.has_repeated_waits = self.has_repeated_waits or count > 1

    @property
    def is_order_sensitive(self) -> bool:
        """True when walking incrementally could differ from walking the whole list again.

        Retries take ids at the moment an event is processed, and several waits for one event name form a stack.
        Everything else is numbered in list order, and completion of a prefix of the list is monotone.
        """
        return self.has_retries or self.has_repeated_waits

    def open_timers(self) -> Iterator[Leaf]:
        """Timers not cancelled so far."""
        return (leaf for leaf in self.leaves if isinstance(leaf.action, CreateTimer) and not leaf.cancelled)
