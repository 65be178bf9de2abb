"""What a manifest says that the flow analysis needs, read once per manifest: classes, words of its own, hosts, its ceiling."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

from engine.domain.capability import Capability
from policy.flow.hosts import entry_of
from policy.flow.traces import LOWEST, Trace

_HOST_NAME = re.compile(r"(?:.*_)?(?:url|uri|host|hostname|webhook|endpoint|domain)", re.IGNORECASE)
_HOST_FORMATS = frozenset({"uri", "iri", "uri-reference", "iri-reference", "hostname", "idn-hostname"})
_MAX_KEPT = 2_048


@dataclass(frozen=True, slots=True)
class Shape:
    """``names`` are the member names its input schema declares, at any depth; ``words`` the values it allows, by parameter;
    ``addresses`` the parameters that hold a URL or a host whatever they look like."""

    ceiling: Trace
    names: frozenset[str] = frozenset()
    words: frozenset[tuple[str, type, Any]] = frozenset()
    addresses: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()


NO_SHAPE = Shape(LOWEST)
"""Of a capability that is not in the catalog."""

_KEPT: OrderedDict[int, tuple[Capability, Shape]] = OrderedDict()
_LOCK = Lock()


def shape_of(capability: Capability | None) -> Shape:
    """The shape of a manifest. Manifests do not change, so it is kept beside the object it was read from."""
    if capability is None:
        return NO_SHAPE
    kept = _KEPT.get(id(capability))
    if kept is not None and kept[0] is capability:
        return kept[1]
    shape = _read(capability)
    with _LOCK:
        _KEPT[id(capability)] = (capability, shape)
        while len(_KEPT) > _MAX_KEPT:
            _KEPT.popitem(last=False)
    return shape


def _read(capability: Capability) -> Shape:
    label = capability.output_label
    properties = capability.input_schema.get("properties")
    parameters: dict[str, Any] = properties if isinstance(properties, dict) else {}
    return Shape(
        ceiling=Trace(label.integrity, label.confidentiality, label.pii),
        names=frozenset(_property_names(capability.input_schema)),
        words=frozenset(word for name, schema in parameters.items() for word in _words(name, schema)),
        addresses=frozenset(name for name, schema in parameters.items() if _is_address(name, schema)),
        hosts=frozenset(map(entry_of, capability.egress_hosts)),
    )


def _property_names(schema: Any) -> list[str]:
    found: list[str] = []
    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            properties = node.get("properties")
            if isinstance(properties, dict):
                found.extend(properties)
            stack.extend(node.values())
    return found


def _words(name: str, schema: Any) -> list[tuple[str, type, Any]]:
    """Values that the manifest itself lists for a parameter: a choice among them brings no value from elsewhere."""
    if not isinstance(schema, dict):
        return []
    items = schema.get("items")
    values: list[Any] = []
    for node in (schema, items if isinstance(items, dict) else {}):
        listed = node.get("enum")
        values += listed if isinstance(listed, list) else []
        values += [node["const"]] if "const" in node else []
    return [(name, type(value), value) for value in values if not isinstance(value, dict | list)]


def _is_address(name: str, schema: Any) -> bool:
    if not isinstance(schema, dict):
        return bool(_HOST_NAME.fullmatch(name))
    items = schema.get("items")
    formats = {schema.get("format"), items.get("format") if isinstance(items, dict) else None}
    return bool(formats & _HOST_FORMATS) or bool(_HOST_NAME.fullmatch(name))
