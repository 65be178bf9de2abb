"""AMQP messages (part 3 of the specification) and the broker's: what a client sends becomes one, and the other way round.

Modelled: bodies of data sections, properties of text, numbers and truth values. Refused: value and sequence bodies, and
properties of other types, instead of guessing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from local_host.queues import LockedMessage, OutgoingMessage, PropertyValue, QueueError
from local_host.service_bus.codec import DecodeError, Decoder, Described, Symbol, UInt, ULong, encode

BATCH_FORMAT = 0x80013700
"""Message format of a batch: each data section is a message of its own (Service Bus)."""
_HEADER, _DELIVERY, _ANNOTATIONS, _PROPERTIES, _APPLICATION, _DATA, _SEQUENCE, _VALUE, _FOOTER = range(0x70, 0x79)
_PROPERTY_NAMES = (
    "message_id user_id to subject reply_to correlation_id content_type content_encoding absolute_expiry_time"
    " creation_time group_id group_sequence reply_to_group_id"
).split()


class Sections:
    """The sections of one message."""

    def __init__(self, payload: bytes) -> None:
        self.found: dict[int, Any] = {}
        self.data: list[bytes] = []
        decoder = Decoder(payload)
        while not decoder.at_end:
            section = decoder.value()
            if not isinstance(section, Described) or section.descriptor not in range(_HEADER, _FOOTER + 1):
                raise DecodeError("a message with a section that is none")
            if section.descriptor == _DATA:
                if not isinstance(section.value, bytes):  # of a number bytes() would make so many zeros
                    raise DecodeError("a data section without bytes")
                self.data.append(section.value)
            else:
                self.found[section.descriptor] = section.value

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that are set, by name."""
        values = self.found.get(_PROPERTIES) or []
        return {name: value for name, value in zip(_PROPERTY_NAMES, values, strict=False) if value is not None}

    @property
    def application(self) -> dict[str, Any]:
        """The application properties."""
        return self.found.get(_APPLICATION) or {}

    @property
    def annotations(self) -> dict[str, Any]:
        """The message annotations."""
        return self.found.get(_ANNOTATIONS) or {}

    @property
    def value(self) -> Any:
        """The body of a message whose body is a value."""
        return self.found.get(_VALUE)

    @property
    def ttl_s(self) -> float | None:
        """The time to live in its header, in seconds."""
        header = self.found.get(_HEADER) or []
        return header[2] / 1000 if len(header) > 2 and header[2] else None


def incoming(payload: bytes, message_format: int | None) -> list[OutgoingMessage]:
    """The messages of one delivery: one, or those of a batch. Raises ``DecodeError`` and ``QueueError("queue.bad_message")``."""
    if message_format == BATCH_FORMAT:
        return [_message(Sections(part)) for part in Sections(payload).data]
    return [_message(Sections(payload))]


def _message(sections: Sections) -> OutgoingMessage:
    if _VALUE in sections.found or _SEQUENCE in sections.found:
        raise QueueError(
            "queue.bad_message", "bodies of values and sequences are not modelled here; send bytes or text"
        )
    given, notes = sections.properties, sections.annotations
    scheduled_at = notes.get("x-opt-scheduled-enqueue-time")
    return OutgoingMessage(
        body=b"".join(sections.data),
        message_id=_id(given.get("message_id")) or "",
        session_id=given.get("group_id"),
        content_type=given.get("content_type"),
        correlation_id=_id(given.get("correlation_id")),
        subject=given.get("subject"),
        reply_to=given.get("reply_to"),
        reply_to_session_id=given.get("reply_to_group_id"),
        to=given.get("to"),
        partition_key=notes.get("x-opt-partition-key"),
        ttl_s=sections.ttl_s,
        scheduled_at=scheduled_at if isinstance(scheduled_at, datetime) else None,
        properties={str(key): _property(key, value) for key, value in sections.application.items()},
    )


def _id(value: Any) -> str | None:
    return None if value is None else str(value)


def _property(key: Any, value: Any) -> PropertyValue:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise QueueError("queue.bad_message", f"the property {str(key)[:80]!r} is no long")
    if value is None or isinstance(value, str | int | float | bool):
        return str(value) if isinstance(value, str) else value
    raise QueueError("queue.bad_message", f"the property {str(key)[:80]!r} is of a type that is not modelled here")


def outgoing(locked: LockedMessage, *, with_lock: bool = True) -> bytes:
    """A message as it is delivered or shown. Sections as Service Bus fills them; the first delivery has the count 0."""
    message = locked.message
    notes: dict[Any, Any] = {
        Symbol("x-opt-enqueued-time"): locked.enqueued_at,
        Symbol("x-opt-sequence-number"): locked.sequence_number,
    }
    if with_lock:
        notes[Symbol("x-opt-locked-until")] = locked.locked_until_at
    if message.partition_key is not None:
        notes[Symbol("x-opt-partition-key")] = message.partition_key
    if message.scheduled_at is not None:
        notes[Symbol("x-opt-scheduled-enqueue-time")] = message.scheduled_at
    if locked.dead_letter_source is not None:
        notes[Symbol("x-opt-deadletter-source")] = locked.dead_letter_source
    ttl_ms = UInt(min(int(message.ttl_s * 1000), 2**32 - 1)) if message.ttl_s else None
    expires_at = locked.enqueued_at + timedelta(seconds=message.ttl_s) if message.ttl_s else None
    count = max(0, locked.delivery_count - (1 if with_lock else 0))
    sections = [
        (_HEADER, [None, None, ttl_ms, None, UInt(count)]),
        (_ANNOTATIONS, notes),
        (_PROPERTIES, _trimmed(_properties(message, locked.enqueued_at, expires_at))),
        (_APPLICATION, _application(locked)),
        (_DATA, message.body),
    ]
    return b"".join(encode(Described(ULong(code), value)) for code, value in sections)


def _properties(message: OutgoingMessage, created_at: datetime, expires_at: datetime | None) -> list[Any]:
    content_type = Symbol(message.content_type) if message.content_type and message.content_type.isascii() else None
    return [
        message.message_id,
        None,
        message.to,
        message.subject,
        message.reply_to,
        message.correlation_id,
        content_type,
        None,
        expires_at,
        created_at,
        message.session_id,
        None,
        message.reply_to_session_id,
    ]


def _application(locked: LockedMessage) -> dict[str, Any]:
    found: dict[str, Any] = dict(locked.message.properties)
    if locked.dead_letter_reason is not None:
        found["DeadLetterReason"] = locked.dead_letter_reason
        found["DeadLetterErrorDescription"] = locked.dead_letter_description or ""
    return found


def _trimmed(values: list[Any]) -> list[Any]:
    while values and values[-1] is None:
        values.pop()
    return values


def reply(value: Any, correlation_id: Any, application: dict[str, Any]) -> bytes:
    """The answer to a request to ``$cbs`` or ``$management``."""
    sections = [
        (_PROPERTIES, [None, None, None, None, None, correlation_id]),
        (_APPLICATION, application),
        (_VALUE, value),
    ]
    return b"".join(encode(Described(ULong(code), part)) for code, part in sections)
