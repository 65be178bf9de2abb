"""Addresses of links: which entity, and whether it is meant itself or its management."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from local_host.queues import DEAD_LETTER_SUFFIX, SUBSCRIPTION_INFIX

CBS = "$cbs"
_MANAGEMENT = "/$management"


class Address(NamedTuple):
    """``kind`` is ``cbs``, ``management`` or ``entity``; ``entity`` its name as the broker has it."""

    kind: Literal["cbs", "management", "entity"]
    entity: str


def parse_address(text: str) -> Address:
    """Reads ``queue``, ``amqps://host/queue``, ``topic/Subscriptions/sub``, each with ``/$management`` or
    ``/$DeadLetterQueue``; the fixed words in any case."""
    path = urlsplit(text).path if "://" in text else text
    path = path.strip("/")
    if path == CBS:
        return Address("cbs", "")
    kind: Literal["management", "entity"] = "entity"
    if path.lower().endswith(_MANAGEMENT):
        kind, path = "management", path[: -len(_MANAGEMENT)]
    dead = path.lower().endswith(DEAD_LETTER_SUFFIX.lower())
    if dead:
        path = path[: -len(DEAD_LETTER_SUFFIX)]
    at = path.lower().find(SUBSCRIPTION_INFIX.lower())
    if at > 0:
        path = path[:at] + SUBSCRIPTION_INFIX + path[at + len(SUBSCRIPTION_INFIX) :]
    return Address(kind, path + (DEAD_LETTER_SUFFIX if dead else ""))
