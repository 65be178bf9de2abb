"""The queues and topics of the namespace, beside those that the app's triggers and outputs name.

``servicebus.entities.json`` in the app's folder::

    {"queues": [{"name": "step-commands", "sessions": true, "lock_s": 60, "max_delivery_count": 10}],
     "topics": [{"name": "run-events", "subscriptions": [{"name": "all"}]}]}

Settings of a queue or subscription are those of ``queues.EntityOptions``. In Azure the same entities are made by the templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from local_host.errors import HostError
from local_host.queues import SUBSCRIPTION_INFIX, EntityOptions, QueueBroker, QueueError

FILE = "servicebus.entities.json"
_OPTIONS = frozenset(field.name for field in fields(EntityOptions))


def declare_entities(app_dir: Path, broker: QueueBroker) -> None:
    """Declare what the file names; no file names nothing. ``HostError("host.bad_entities")`` with the place of the offence."""
    path = app_dir / FILE
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as err:
        raise HostError("host.bad_entities", f"not JSON: {err}", FILE) from err
    if not isinstance(found, dict) or set(found) - {"queues", "topics"}:
        raise HostError("host.bad_entities", "must be an object with 'queues' and 'topics'", FILE)
    for index, queue in enumerate(_list(found, "queues", "")):
        _declare(broker, queue, "", f"/queues/{index}")
    for index, topic in enumerate(_list(found, "topics", "")):
        place = f"/topics/{index}"
        name = _name(topic, place)
        if set(topic) - {"name", "subscriptions"}:
            raise HostError("host.bad_entities", "a topic has 'name' and 'subscriptions'", f"{FILE}#{place}")
        broker.declare_topic(name)
        for number, subscription in enumerate(_list(topic, "subscriptions", place)):
            _declare(broker, subscription, name + SUBSCRIPTION_INFIX, f"{place}/subscriptions/{number}")


def _declare(broker: QueueBroker, entity: Any, prefix: str, place: str) -> None:
    name = _name(entity, place)
    given = {key: value for key, value in entity.items() if key != "name"}
    unknown = sorted(set(given) - _OPTIONS)
    if unknown:
        raise HostError("host.bad_entities", f"unknown settings: {', '.join(unknown)}", f"{FILE}#{place}")
    try:
        broker.declare(prefix + name, EntityOptions(**given))
    except (QueueError, TypeError) as err:
        raise HostError("host.bad_entities", str(err), f"{FILE}#{place}") from err


def _list(found: Mapping[str, Any], key: str, place: str) -> list[Any]:
    value = found.get(key, [])
    if not isinstance(value, list):
        raise HostError("host.bad_entities", f"{key!r} must be a list", f"{FILE}#{place}/{key}")
    return value


def _name(entity: Any, place: str) -> str:
    name = entity.get("name") if isinstance(entity, dict) else None
    if not isinstance(name, str) or not name:
        raise HostError("host.bad_entities", "'name' is missing", f"{FILE}#{place}")
    return name
