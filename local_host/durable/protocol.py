"""Vocabulary of the out-of-proc protocol: the actions the SDK returns, as typed values.

The wire form is the JSON that azure-functions-durable 1.x emits (replay schema 1 and 2). Deliberately not here:
history events (`history.py`), numbering and scheduling. Unknown action types are refused, never skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

OUT_OF_PROC_MARKER = "\n\n$OutOfProcData$:"
"""Separates the exception text from the JSON state in the SDK's failure channel."""

MAX_ACTIONS = 100_000
"""Default of the extension's `maxOrchestrationActions`."""

Json = dict[str, Any]


class ProtocolError(Exception):
    """The SDK returned something this protocol version does not know."""


def to_stamp(moment: datetime) -> str:
    """Timestamp text as the SDK expects it: UTC, six fractional digits, literal Z."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def from_stamp(text: str) -> datetime:
    """Inverse of `to_stamp`; also accepts any ISO 8601 text with or without an offset (none means UTC)."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def digest_of(text: str | None) -> str:
    """Short digest of a payload, kept in history in place of the payload itself."""
    return hashlib.sha256((text or "").encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Constant-interval retry, the only kind the SDK can express."""

    first_interval_ms: int
    max_attempts: int


@dataclass(frozen=True, slots=True)
class CallActivity:
    """Types 0 and 1. `input_json` is JSON text."""

    name: str
    input_json: str
    retry: RetryPolicy | None = None


@dataclass(frozen=True, slots=True)
class CallSubOrchestrator:
    """Types 2 and 3. No `instance_id` means the host generates one."""

    name: str
    input_json: str
    instance_id: str | None = None
    version: str | None = None
    retry: RetryPolicy | None = None


@dataclass(frozen=True, slots=True)
class ContinueAsNew:
    """Type 4."""

    input_json: str


@dataclass(frozen=True, slots=True)
class CreateTimer:
    """Type 5. `cancelled` as of the response it was first seen in; it may flip later (see `Leaf.cancelled`)."""

    fire_at: str
    cancelled: bool


@dataclass(frozen=True, slots=True)
class WaitForEvent:
    """Type 6. Consumes no id."""

    name: str


@dataclass(frozen=True, slots=True)
class EntityOperation:
    """Types 7 (call) and 9 (signal: fire and forget). `entity_id` is `@name@key`."""

    entity_id: str
    operation: str
    input_json: str
    signal: bool


@dataclass(frozen=True, slots=True)
class CallHttp:
    """Type 8. `request_json` is the SDK's `httpRequest` object as JSON text."""

    request_json: str


@dataclass(frozen=True, slots=True)
class Compound:
    """Types 11 (`any_of`) and 12."""

    any_of: bool
    children: tuple[Action, ...]


LeafAction = (
    CallActivity | CallSubOrchestrator | ContinueAsNew | CreateTimer | WaitForEvent | EntityOperation | CallHttp
)
Action = LeafAction | Compound


def parse_actions(raw: Sequence[Mapping[str, Any]]) -> list[Action]:
    """Typed form of a list of wire actions; ProtocolError when one is unknown or misses a key."""
    try:
        return [_parse(item) for item in raw]
    except (KeyError, TypeError, ValueError) as err:
        raise ProtocolError(f"The SDK returned an action this host cannot read: {err!r}") from err


def _parse(raw: Mapping[str, Any]) -> Action:
    kind = int(raw["actionType"])
    parser = _PARSERS.get(kind)
    if parser is None:
        raise ProtocolError(f"Unknown action type {kind}")
    return parser(raw)


def _retry(raw: Mapping[str, Any]) -> RetryPolicy:
    options = raw["retryOptions"]
    return RetryPolicy(int(options["firstRetryIntervalInMilliseconds"]), int(options["maxNumberOfAttempts"]))


def _activity(raw: Mapping[str, Any]) -> CallActivity:
    return CallActivity(raw["functionName"], raw["input"], _retry(raw) if "retryOptions" in raw else None)


def _sub(raw: Mapping[str, Any]) -> CallSubOrchestrator:
    retry = _retry(raw) if "retryOptions" in raw else None
    return CallSubOrchestrator(raw["functionName"], raw["input"], raw.get("instanceId"), raw.get("version"), retry)


def _entity(raw: Mapping[str, Any]) -> EntityOperation:
    return EntityOperation(raw["instanceId"], raw["operation"], raw["input"], int(raw["actionType"]) == 9)


def _compound(raw: Mapping[str, Any]) -> Compound:
    return Compound(int(raw["actionType"]) == 11, tuple(_parse(child) for child in raw["compoundActions"]))


_PARSERS: dict[int, Callable[[Mapping[str, Any]], Action]] = {
    0: _activity,
    1: _activity,
    2: _sub,
    3: _sub,
    4: lambda raw: ContinueAsNew(raw["input"]),
    5: lambda raw: CreateTimer(raw["fireAt"], bool(raw["isCanceled"])),
    6: lambda raw: WaitForEvent(raw["externalEventName"]),
    7: _entity,
    8: lambda raw: CallHttp(json.dumps(raw["httpRequest"])),
    9: _entity,
    11: _compound,
    12: _compound,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What the determinism check compares: kind, name and input digest of one action."""

    kind: str
    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' (input digest {self.digest})" if self.name else self.kind


HTTP_ACTIVITY = "BuiltIn::HttpActivity"
"""Name under which the extension runs call_http."""


def identity_of(action: LeafAction) -> Identity:
    """Identity of an action; the fire time counts as a timer's input."""
    match action:
        case CallActivity(name=name, input_json=payload):
            return Identity("activity", name, digest_of(payload))
        case CallSubOrchestrator(name=name, input_json=payload):
            return Identity("sub-orchestration", name, digest_of(payload))
        case CallHttp(request_json=payload):
            return Identity("activity", HTTP_ACTIVITY, digest_of(payload))
        case CreateTimer(fire_at=fire_at):
            return Identity("timer", fire_at, digest_of(fire_at))
        case EntityOperation(entity_id=entity_id, operation=operation, input_json=payload, signal=signal):
            kind = "entity signal" if signal else "entity call"
            return Identity(kind, f"{entity_id}.{operation}", digest_of(payload))
        case WaitForEvent(name=name):
            return Identity("external event wait", name, digest_of(None))
        case ContinueAsNew(input_json=payload):
            return Identity("continue-as-new", "", digest_of(payload))


def retry_of(action: LeafAction) -> RetryPolicy | None:
    """The retry policy of an action, if it has one."""
    return action.retry if isinstance(action, CallActivity | CallSubOrchestrator) else None


def same_identity(left: Identity, right: Identity) -> bool:
    """Equality with names compared case-insensitively, as the engine resolves them."""
    return left.kind == right.kind and left.name.lower() == right.name.lower() and left.digest == right.digest
