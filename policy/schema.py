"""The Cedar schema of a catalog: one action per capability, in groups by side effect, and everything a policy may look at.

Generated, never written by hand, so that a policy that misspells a parameter is refused when it is loaded. Its words:

- ``Livoa::User`` in its ``Livoa::Tenant`` and its ``Livoa::Role``s; the resource is the ``Livoa::Agent`` that carries a
  capability out, in its region, or the ``Livoa::Plan``.
- Actions ``plan.submit`` and one per capability, in the groups ``call`` (all), ``read`` (side effect none or read),
  ``sideEffect`` (write or external), ``write`` and ``external``.
- ``context`` of a call: ``tenant``, ``call``, ``input`` (every argument optional: it may not be bound yet), ``flow``,
  ``cures``; of a plan: ``tenant``, ``budget``, ``cures``. Every attribute costs time in every question, a reference six times
  as much, so what is the same for all steps stands on the tenant.

Arguments appear where their JSON Schema has an exact counterpart: text, integer, boolean, lists of text, and records of these;
``number`` becomes ``decimal`` (four places, rounded away from zero, so that an upper limit cannot be slipped under). Lists of
records, unions and bulky payloads do not appear: policies judge those by their labels in ``flow``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_UP, Decimal, InvalidOperation
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.capability import Capability, SideEffect
from policy.hashes import sha256_of

NAMESPACE = "Livoa"
ACTION_TYPE = f"{NAMESPACE}::Action"
USER, TENANT, ROLE = f"{NAMESPACE}::User", f"{NAMESPACE}::Tenant", f"{NAMESPACE}::Role"
AGENT, PLAN = f"{NAMESPACE}::Agent", f"{NAMESPACE}::Plan"

SUBMIT = "plan.submit"
CALL, READ, SIDE_EFFECT, WRITE, EXTERNAL = "call", "read", "sideEffect", "write", "external"
GROUPS: Mapping[str, tuple[str, ...]] = {
    CALL: (),
    READ: (CALL,),
    SIDE_EFFECT: (CALL,),
    WRITE: (SIDE_EFFECT,),
    EXTERNAL: (SIDE_EFFECT,),
}
_GROUP_OF: Mapping[SideEffect, str] = {"none": READ, "read": READ, "write": WRITE, "external": EXTERNAL}

MAX_RECORD_DEPTH = 3
_DECIMAL_STEP = Decimal("0.0001")
_MAX_LONG = 2**63 - 1
_DECIMAL_LIMIT = Decimal("922337203685477")

_TEXT: JsonObject = {"type": "String"}
_NUMBER: JsonObject = {"type": "Long"}
_FLAG: JsonObject = {"type": "Boolean"}
_TEXTS: JsonObject = {"type": "Set", "element": _TEXT}


def group_of(capability: Capability) -> str:
    """The innermost action group of a capability."""
    return _GROUP_OF[capability.side_effect]


def groups_above(group: str) -> tuple[str, ...]:
    """The group and every group it is in, innermost first."""
    found = [group]
    for name in found:
        found.extend(above for above in GROUPS[name] if above not in found)
    return tuple(found)


def cedar_schema(capabilities: Iterable[Capability]) -> JsonObject:
    """The schema in Cedar's JSON form."""
    actions: JsonObject = {name: {"memberOf": _in(*above)} for name, above in GROUPS.items()}
    actions[SUBMIT] = _action((), "Plan", _SUBMIT)
    for group in (READ, WRITE, EXTERNAL):
        # A policy over a group without any action would not fit the schema. Capabilities have no colon in their names.
        actions[f"{group}:none"] = _action((group,), "Agent", {**_CALL, "input": _record()})
    for one in sorted(capabilities, key=lambda capability: capability.name):
        context = {**_CALL, "input": input_type(one)}
        actions[one.name] = _action((group_of(one),), "Agent", context)
    return {
        NAMESPACE: {
            "commonTypes": _TYPES,
            "entityTypes": _ENTITIES,
            "actions": actions,
        }
    }


def schema_hash(capabilities: Iterable[Capability]) -> str:
    """SHA-256 over the canonical form of the schema."""
    return sha256_of(cedar_schema(capabilities))


def input_type(capability: Capability) -> JsonObject:
    """The record type of a capability's arguments, every one optional."""
    properties = capability.input_schema.get("properties", {})
    found = _fields(properties, depth=1)
    if any(capability.parameter_class(name) == "payload" for name in properties):
        # A payload may be large, and its lists and records say nothing that its label does not say better.
        found = {name: kind for name, kind in found.items() if _worth(capability, name, kind)}
    return {"type": "Record", "attributes": found}


def input_value(value: Any, kind: JsonObject) -> Any:
    """``value`` as an attribute of type ``kind`` (see ``input_type``). Raises ``ValueError`` when it cannot be said in Cedar."""
    match kind["type"], value:
        case "Extension", int() | float() if not isinstance(value, bool):
            return {"__extn": {"fn": "decimal", "arg": _decimal(value)}}
        case "Set", list():
            return [input_value(one, kind["element"]) for one in value]
        case "Record", dict():
            fields = kind["attributes"]
            return {name: input_value(one, fields[name]) for name, one in value.items() if name in fields}
        case "Long", int() | float() if not isinstance(value, bool) and value == int(value) and abs(value) <= _MAX_LONG:
            return int(value)  # JSON Schema takes 3.0 for an integer
        case "Boolean", bool():
            return value
        case "String", str():
            return value
    raise ValueError(f"it is no {kind['type']}")


def _decimal(value: Any) -> str:
    try:
        number = Decimal(repr(value))
        if abs(number) >= _DECIMAL_LIMIT:
            raise ValueError("the number is too large for a policy")
        return f"{number.quantize(_DECIMAL_STEP, ROUND_UP):f}"
    except InvalidOperation:
        raise ValueError("not a number") from None


def _worth(capability: Capability, name: str, kind: JsonObject) -> bool:
    return capability.parameter_class(name) != "payload" or kind["type"] not in ("Set", "Record")


def _fields(properties: Any, depth: int) -> JsonObject:
    found: JsonObject = {}
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        kind = _kind(schema, depth)
        if kind is not None:
            found[name] = {**kind, "required": False}
    return found


def _kind(schema: Any, depth: int) -> JsonObject | None:
    if not isinstance(schema, dict):
        return None
    match schema.get("type"):
        case "string":
            return _TEXT
        case "integer":
            return _NUMBER
        case "boolean":
            return _FLAG
        case "number":
            return {"type": "Extension", "name": "decimal"}
        case "array" if isinstance(schema.get("items"), dict) and schema["items"].get("type") == "string":
            return _TEXTS
        case "object" if depth < MAX_RECORD_DEPTH and isinstance(schema.get("properties"), dict):
            return {"type": "Record", "attributes": _fields(schema["properties"], depth + 1)}
        case _:
            return None


def _record(**attributes: JsonObject) -> JsonObject:
    return {"type": "Record", "attributes": attributes}


def _entity(name: str) -> JsonObject:
    return {"type": "Entity", "name": name}


def _in(*groups: str) -> list[JsonObject]:
    return [{"id": group} for group in groups]


def _action(groups: tuple[str, ...], target: str, context: JsonObject) -> JsonObject:
    return {
        "memberOf": _in(*groups),
        "appliesTo": {"principalTypes": ["User"], "resourceTypes": [target], "context": _record(**context)},
    }


_LABEL: JsonObject = {"type": "Label"}
_TYPES: JsonObject = {
    "Label": _record(integrity=_NUMBER, confidentiality=_NUMBER, pii=_FLAG),
    "Budget": _record(planMicroUsd=_NUMBER, steps=_NUMBER, depth=_NUMBER, fanOut=_NUMBER),
    "Cures": _record(approved=_FLAG, approverDiffers=_FLAG, redacted=_TEXTS),
    "Call": _record(
        capability=_TEXT,
        purpose=_TEXT,
        clearance=_NUMBER,
        costMicroUsd=_NUMBER,
        itemsAtMost=_NUMBER,
        plannedBy=_TEXT,
    ),
    "Flow": _record(
        selectors=_LABEL, payload=_LABEL, control=_LABEL, externalHosts=_TEXTS, untrustedHosts=_TEXTS, personal=_TEXTS
    ),
}
_COMMON: JsonObject = {
    "tenant": _entity("Tenant"),
    "cures": {"type": "Cures"},
}
_SUBMIT: JsonObject = {**_COMMON, "budget": {"type": "Budget"}}
_CALL: JsonObject = {**_COMMON, "call": {"type": "Call"}, "flow": {"type": "Flow"}}
_ENTITIES: JsonObject = {
    "Tenant": {
        "shape": _record(
            regions=_TEXTS,
            tier=_TEXT,
            maxSteps=_NUMBER,
            maxDepth=_NUMBER,
            maxFanOut=_NUMBER,
            maxCostMicroUsd=_NUMBER,
            hosts=_TEXTS,
        ),
        "tags": _TEXTS,
    },
    "Role": {},
    "User": {"memberOfTypes": ["Tenant", "Role"], "shape": _record(tenant=_entity("Tenant"), kind=_TEXT, app=_TEXT)},
    "Agent": {"shape": _record(name=_TEXT, region=_TEXT)},
    "Plan": {
        "memberOfTypes": ["Tenant"],
        "shape": _record(tenant=_entity("Tenant"), writtenBy=_TEXT, seenIntegrity=_NUMBER),
    },
}
