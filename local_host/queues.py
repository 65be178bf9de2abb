"""The queue port of the embedded host: Service Bus semantics without Service Bus.

Peek-lock, delivery count, dead-letter, scheduled enqueue, sessions, duplicate detection, topics. Deliberately not
here: subscription filters, deferral, transactions, auto-forward, partitioned entities.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

MAX_BODY_BYTES = 1_048_576  # the premium tier's default; the standard tier takes 256 KiB
DEAD_LETTER_SUFFIX = "/$DeadLetterQueue"
SUBSCRIPTION_INFIX = "/Subscriptions/"
_NAME = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._~-]|/(?=[A-Za-z0-9]))*$")

PropertyValue = str | int | float | bool | None


class QueueError(Exception):
    """A refused queue operation; `code` is stable: `queue.not_found`, `queue.lock_lost`, `queue.bad_message`,
    `queue.conflict`, `queue.bad_name`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class EntityOptions:
    """Settings of a queue or subscription; defaults are Service Bus's. `duplicate_window_s` 0 turns detection off."""

    lock_s: float = 60.0
    max_delivery_count: int = 10
    sessions: bool = False
    duplicate_window_s: float = 0.0
    default_ttl_s: float | None = None
    dead_letter_on_expiry: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.lock_s <= 300 or not 1 <= self.max_delivery_count <= 2000:
            raise QueueError("queue.bad_message", "lock_s must be in (0, 300] and max_delivery_count in [1, 2000]")


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to send; `message_id` empty means "make one". `scheduled_at` is aware UTC."""

    body: bytes
    message_id: str = ""
    session_id: str | None = None
    content_type: str | None = None
    correlation_id: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    reply_to_session_id: str | None = None
    to: str | None = None
    partition_key: str | None = None
    ttl_s: float | None = None
    scheduled_at: datetime | None = None
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LockedMessage:
    """A received message under a lock; settle it with `lock_token` before `locked_until_at`.

    `delivery_count` counts this delivery (1 for the first).
    """

    sequence_number: int
    entity: str
    message: OutgoingMessage
    enqueued_at: datetime
    expires_at: datetime | None
    delivery_count: int
    lock_token: str
    locked_until_at: datetime
    dead_letter_reason: str | None = None
    dead_letter_description: str | None = None
    dead_letter_source: str | None = None


@dataclass(frozen=True, slots=True)
class SessionLock:
    """The exclusive right to one session; its messages share this lock's time."""

    entity: str
    session_id: str
    token: str
    locked_until_at: datetime


@dataclass(frozen=True, slots=True)
class EntityCounts:
    """Messages by state, as of now."""

    active: int
    scheduled: int
    locked: int
    dead_letter: int


class QueueBroker(Protocol):
    """All methods are quick and synchronous; each is one transaction. Times come from the broker's clock."""

    def declare(self, name: str, options: EntityOptions | None = None) -> None:
        """Make a queue, or a subscription `topic/Subscriptions/name` with its topic; idempotent.

        With options an existing entity takes them over, except that sessions cannot be switched (`queue.conflict`).
        """
        ...

    def declare_topic(self, name: str) -> None:
        """Make a topic without subscriptions; idempotent. Sends to it are copied to each subscription."""
        ...

    def send(self, name: str, message: OutgoingMessage) -> str:
        """Enqueue and return the message id; a duplicate within the window is accepted and dropped."""
        ...

    def receive(self, name: str, limit: int = 1, session: SessionLock | None = None) -> list[LockedMessage]:
        """Lock up to `limit` available messages in order of arrival; empty when there is none.

        A queue with sessions needs `session`. Raises `queue.not_found`, `queue.lock_lost`, `queue.conflict`.
        """
        ...

    def complete(self, entity: str, lock_token: str) -> None:
        """The message is done. Raises `queue.lock_lost` (also for a second time)."""
        ...

    def abandon(self, entity: str, lock_token: str) -> None:
        """Give the message back at once; dead-letters it after the last allowed delivery."""
        ...

    def dead_letter(self, entity: str, lock_token: str, reason: str, description: str = "") -> None:
        """Move the message to `<entity>/$DeadLetterQueue`."""
        ...

    def renew(self, entity: str, lock_token: str) -> datetime:
        """Extend a message lock by the entity's lock time; returns the new end."""
        ...

    def accept_session(self, name: str, session_id: str | None = None) -> SessionLock | None:
        """Lock the named session, or the first one that has an available message; None when there is none."""
        ...

    def renew_session(self, lock: SessionLock) -> SessionLock:
        """Extend a session lock. Raises `queue.lock_lost`."""
        ...

    def release_session(self, lock: SessionLock) -> None:
        """Give a session back; its unsettled messages become available again."""
        ...

    def counts(self, name: str) -> EntityCounts:
        """How many messages are where. Raises `queue.not_found`."""
        ...

    def next_due_at(self, name: str) -> datetime | None:
        """When the next scheduled message or expiring lock may make a message available; None when nothing will."""
        ...

    def on_available(self, name: str, wake: Callable[[], None], session_id: str | None = None) -> Callable[[], None]:
        """Call `wake` after sends and abandons to `name`, with `session_id` to that session alone; returns what stops it."""
        ...


def checked_name(name: str) -> str:
    """`name` if it is a legal entity name (up to 260 characters). Raises `queue.bad_name`."""
    plain = name.removesuffix(DEAD_LETTER_SUFFIX)
    if len(plain) > 260 or _NAME.match(plain) is None:
        raise QueueError("queue.bad_name", f"{name[:80]!r} is not a queue name")
    return name


def topic_of(name: str) -> str | None:
    """The topic of a subscription name, None for a queue."""
    topic, infix, subscription = name.partition(SUBSCRIPTION_INFIX)
    return topic if infix and subscription else None
