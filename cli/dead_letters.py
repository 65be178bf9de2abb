"""Dead letters of a Service Bus namespace, through its own SDK: look at them, and send them to where they came from again.

Looking takes nothing away and locks nothing. Of bodies only a bounded part is ever shown, with what could be a secret blackened.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cli.errors import CliError
from cli.paths import ROOT
from engine.domain.bus import PUT_OFF
from engine.domain.run_messages import POSTPONED

SUBSCRIPTION = "/Subscriptions/"
MAX_LISTED = 500
MAX_SCANNED = 1_000
"""How many dead letters of one entity a replay looks through."""
MAX_BODY_CHARS = 20_000
REPLAY_OF = "replay_of"
"""Application property of a replayed message: the id of the dead letter."""

_MAX_MESSAGE_ID = 128
_PAGE = 100
_WAIT_S = 3.0
_SECRET = re.compile(
    r"nonce|token|secret|passw|authoriz|signature|grant|credential|api_?key|access_?key", re.IGNORECASE
)
_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_BLACKENED = "(not shown)"


@dataclass(frozen=True, slots=True)
class Letter:
    """What can be told of a dead letter without its content."""

    entity: str
    sequence_number: int
    message_id: str
    session_id: str | None
    reason: str
    description: str
    deliveries: int
    enqueued_at: str | None
    size_bytes: int

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {name: getattr(self, name) for name in self.__slots__}


def known_entities() -> list[str]:
    """The queues and subscriptions that this project uses (``servicebus.entities.json``)."""
    found = json.loads((ROOT / "servicebus.entities.json").read_text(encoding="utf-8"))
    queues = [queue["name"] for queue in found["queues"]]
    return queues + [
        f"{topic['name']}{SUBSCRIPTION}{subscription['name']}"
        for topic in found["topics"]
        for subscription in topic.get("subscriptions", [])
    ]


def letters(client: Any, entity: str, limit: int) -> list[Letter]:
    """The oldest dead letters of an entity, without touching them."""
    with _receiver(client, entity) as receiver:
        return [_letter(entity, message) for message in _peeked(receiver, 1, min(limit, MAX_LISTED))]


def letter(client: Any, entity: str, sequence_number: int) -> tuple[Letter, bytes]:
    """One dead letter and its body. ``CliError("dlq.not_found")``."""
    with _receiver(client, entity) as receiver:
        for message in receiver.peek_messages(1, sequence_number=sequence_number):
            if message.sequence_number == sequence_number:
                return _letter(entity, message), _body(message)
    message = f"{entity} has no dead letter {sequence_number}"
    raise CliError(message, hint=f"./livoa dlq list {entity} has their numbers", code="dlq.not_found")


def replay(client: Any, entity: str, wanted: Callable[[Letter], bool], limit: int) -> list[Letter]:
    """Send the dead letters that are ``wanted`` again, oldest first, and take each out once it has been sent.

    A crash in between leaves a letter that has been sent: sent once more, it has the same id again. The content is the same
    to the byte, and with it what makes a message the one it is (``jti`` of a request, key and token of a step, id of an event).
    """
    done: list[Letter] = []
    seen: list[Any] = []
    with _receiver(client, entity) as receiver, _sender(client, entity) as sender:
        while len(done) < limit and len(seen) < MAX_SCANNED:
            messages = receiver.receive_messages(min(_PAGE, limit), max_wait_time=_WAIT_S)
            if not messages:
                break
            for message in messages:
                found = _letter(entity, message)
                if len(done) < limit and wanted(found):
                    sender.send_messages(_again(message))
                    receiver.complete_message(message)
                    done.append(found)
                else:
                    seen.append(message)
        for message in seen:
            receiver.abandon_message(message)
    return done


def readable(body: bytes, max_chars: int) -> str:
    """A bounded part of a body for people: JSON with what could be a secret blackened, a signed envelope as its content."""
    value = _signed_content(body)
    if value is None:
        try:
            value = json.loads(body)
        except ValueError:
            return f"({len(body)} bytes that are no JSON)"
    text = json.dumps(_blackened(value), ensure_ascii=True, indent=2)
    most = min(max_chars, MAX_BODY_CHARS)
    return text if len(text) <= most else f"{text[:most]}\n... ({len(text) - most} characters more)"


def _signed_content(body: bytes) -> Any:
    if _COMPACT.fullmatch(body) is None:
        return None
    try:
        header, payload = (
            json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))) for part in body.split(b".")[:2]
        )
    except (ValueError, binascii.Error):
        return None
    return {"header": header, "payload": payload, "signature": _BLACKENED}


def _blackened(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _BLACKENED if isinstance(item, str) and _SECRET.search(name) else _blackened(item)
            for name, item in value.items()
        }
    return [_blackened(item) for item in value] if isinstance(value, list) else value


def _receiver(client: Any, entity: str) -> Any:
    from azure.servicebus import ServiceBusSubQueue

    topic, is_subscription, name = entity.partition(SUBSCRIPTION)
    if is_subscription:
        return client.get_subscription_receiver(topic, name, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    return client.get_queue_receiver(entity, sub_queue=ServiceBusSubQueue.DEAD_LETTER)


def _sender(client: Any, entity: str) -> Any:
    topic, is_subscription, _ = entity.partition(SUBSCRIPTION)
    return client.get_topic_sender(topic) if is_subscription else client.get_queue_sender(entity)


def _peeked(receiver: Any, first: int, limit: int) -> Iterator[Any]:
    left = limit
    while left > 0:
        page = receiver.peek_messages(min(_PAGE, left), sequence_number=first)
        if not page:
            return
        yield from page
        left -= len(page)
        first = page[-1].sequence_number + 1


def _letter(entity: str, message: Any) -> Letter:
    at = message.enqueued_time_utc
    return Letter(
        entity=entity,
        sequence_number=message.sequence_number,
        message_id=str(message.message_id or ""),
        session_id=message.session_id,
        reason=str(message.dead_letter_reason or ""),
        description=str(message.dead_letter_error_description or ""),
        deliveries=int(message.delivery_count or 0),
        enqueued_at=at.isoformat().replace("+00:00", "Z") if at is not None else None,
        size_bytes=len(_body(message)),
    )


def _body(message: Any) -> bytes:
    return b"".join(message.body)


def _again(message: Any) -> Any:
    """The same message under an id that follows from the dead letter: under its own id, duplicate detection would drop it.

    It may be put off anew as often as a fresh one.
    """
    from azure.servicebus import ServiceBusMessage

    dropped = ("DeadLetterReason", "DeadLetterErrorDescription", REPLAY_OF, POSTPONED, PUT_OFF)
    named = {_text(name): value for name, value in (message.application_properties or {}).items()}
    properties: dict[str | bytes, Any] = {name: value for name, value in named.items() if name not in dropped}
    # A letter that was replayed before keeps the id that it had first.
    original = _text(named.get(REPLAY_OF, message.message_id or ""))
    return ServiceBusMessage(
        _body(message),
        message_id=_replay_id(original, message.sequence_number),
        session_id=message.session_id,
        content_type=message.content_type,
        correlation_id=message.correlation_id,
        subject=message.subject,
        reply_to=message.reply_to,
        reply_to_session_id=message.reply_to_session_id,
        to=message.to,
        application_properties=properties | {REPLAY_OF: original},
    )


def _replay_id(original: str, sequence_number: int) -> str:
    text = f"{original}.replay-{sequence_number}"
    return text if len(text) <= _MAX_MESSAGE_ID else f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
