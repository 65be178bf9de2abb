"""Does the replay still say what history recorded? The SDK checks nothing, so the host does.

Three checks: a replayed list against the one known in memory, a replayed list against recorded created events, and (strict)
the SDK's ids against the ids the Durable Task Framework would count when it walks the list from scratch. The last one
finds retries in a dynamic pool, which run on a lenient host and fail or hang in Azure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from local_host.durable.history import Created, Event, EventSent, SubCreated, TaskScheduled, TimerCreated
from local_host.durable.listing import Leaf, Listing
from local_host.durable.numbering import Numbering
from local_host.durable.protocol import Identity, digest_of, identity_of, parse_actions, same_identity
from local_host.durable.walker import FrameworkIds, Role, Scheduled, walk_again

PREFIX = "Non-Deterministic workflow detected: "
_CAUSES = (
    " The two usual causes: the orchestrator's code was changed while this instance was running, or the code depends on"
    " something that differs between replays (clock, randomness, environment, I/O, iteration order of a set)."
)
_RETRY_CAUSE = (
    " The usual causes: an action with RetryOptions inside a task_any pool (its retry timer and later actions are"
    " numbered in a different order when the engine walks the list again), or a task_all that failed while"
    " a retry was pending. Retry in the orchestrator's own code with plain activities and timers instead."
)


class NonDeterministicError(Exception):
    """The replay contradicts recorded history; the instance fails with this text."""

    def __init__(self, recorded: str, replayed: str, causes: str = _CAUSES) -> None:
        super().__init__(f"{PREFIX}recorded was {recorded}, but the replay produced {replayed}.{causes}")


def roles_by_id(listing: Listing, numbering: Numbering) -> dict[int, tuple[Leaf, Role]]:
    """Which leaf, and in what role, each of the SDK's ids belongs to."""
    roles: dict[int, tuple[Leaf, Role]] = {}
    for leaf in listing.leaves:
        if leaf.id is None:
            continue
        current, role = leaf.id, Role.ACTION
        roles[current] = (leaf, role)
        while leaf.retry is not None and current in numbering.after:
            current = numbering.after[current]
            role = Role.ATTEMPT if role is Role.RETRY_TIMER else Role.RETRY_TIMER
            roles[current] = (leaf, role)
    return roles


def _recorded_identity(event: Created) -> Identity:
    match event:
        case TaskScheduled(name=name, digest=digest):
            return Identity("activity", name, digest)
        case SubCreated(name=name, digest=digest):
            return Identity("sub-orchestration", name, digest)
        case TimerCreated(fire_at=fire_at):
            return Identity("timer", fire_at, digest_of(fire_at))
        case EventSent(entity_id=entity_id, operation=operation, signal=signal, digest=digest):
            return Identity("entity signal" if signal else "entity call", f"{entity_id}.{operation}", digest)


def check_recorded(events: Sequence[Event], listing: Listing, numbering: Numbering) -> None:
    """Compare every created event with the action that now has its id; NonDeterministicError on the first difference."""
    roles = roles_by_id(listing, numbering)
    for event in events:
        if not isinstance(event, Created):
            continue
        recorded = _recorded_identity(event)
        found = roles.get(event.event_id)
        where = f"{recorded} with sequence number {event.event_id}"
        if found is None:
            raise NonDeterministicError(where, f"only {numbering.next_id} numbered actions, none with that number")
        leaf, role = found
        if role is Role.RETRY_TIMER:
            if recorded.kind != "timer":
                raise NonDeterministicError(where, f"a retry timer of {identity_of(leaf.action)} at that number")
        elif not same_identity(recorded, identity_of(leaf.action)):
            raise NonDeterministicError(where, f"{identity_of(leaf.action)} at that number")


def check_prefix(known: Sequence[Mapping[str, Any]], replayed: Sequence[Mapping[str, Any]]) -> None:
    """Compare a replayed raw list with the raw list known so far; a timer may have become cancelled meanwhile."""
    for position, old in enumerate(known):
        if position >= len(replayed):
            raise NonDeterministicError(f"{_describe(old)} at position {position} of the action list", "a shorter list")
        new = replayed[position]
        if old != new and not _differs_by_cancel_only(old, new):
            raise NonDeterministicError(
                f"{_describe(old)} at position {position} of the action list", f"{_describe(new)} there"
            )


def _differs_by_cancel_only(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if old.get("actionType") != new.get("actionType"):
        return False
    if "compoundActions" in old:
        left, right = old["compoundActions"], new["compoundActions"]
        return len(left) == len(right) and all(
            a == b or _differs_by_cancel_only(a, b) for a, b in zip(left, right, strict=True)
        )
    return old.get("actionType") == 5 and old.get("fireAt") == new.get("fireAt")


def _describe(raw: Mapping[str, Any]) -> str:
    if "compoundActions" in raw:
        word = "WhenAny" if raw["actionType"] == 11 else "WhenAll"
        return f"{word}[{', '.join(_describe(child) for child in raw['compoundActions'][:5])}]"
    action = parse_actions([raw])[0]
    return str(identity_of(action))  # type: ignore[arg-type]  # compounds were handled above


def check_framework(events: Sequence[Event], listing: Listing, numbering: Numbering) -> None:
    """Walk from scratch with the framework's own counter and compare with the SDK's ids (strict mode)."""
    walk, _ = walk_again(listing, events, FrameworkIds())
    roles = roles_by_id(listing, numbering)
    for item in walk.scheduled:
        found = roles.get(item.id)
        if found is None or found[0] is not item.leaf or found[1] is not item.role:
            sdk_view = _say(*found) if found else "nothing"
            raise NonDeterministicError(
                f"{sdk_view} with sequence number {item.id}", f"{_say_item(item)} at that number", _RETRY_CAUSE
            )


def _say(leaf: Leaf, role: Role) -> str:
    return f"{identity_of(leaf.action)}" if role is Role.ACTION else f"a {role.value} of {identity_of(leaf.action)}"


def _say_item(item: Scheduled) -> str:
    return _say(item.leaf, item.role)
