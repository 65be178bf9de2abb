"""AMQP 1.0 frames and what stands in them (parts 2 and 5): a performative with named fields, and perhaps a payload."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from local_host.service_bus.codec import DecodeError, Decoder, Described, Symbol, ULong, encode

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
MIN_FRAME_BYTES = 8
MAX_FRAME_BYTES = 64 * 1024
"""The largest frame that is read, as told to the peer."""

_FIELDS: dict[int, tuple[str, str]] = {
    0x10: (
        "open",
        "container_id hostname max_frame_size channel_max idle_timeout outgoing_locales incoming_locales"
        " offered_capabilities desired_capabilities properties",
    ),
    0x11: (
        "begin",
        "remote_channel next_outgoing_id incoming_window outgoing_window handle_max offered_capabilities"
        " desired_capabilities properties",
    ),
    0x12: (
        "attach",
        "name handle role snd_settle_mode rcv_settle_mode source target unsettled incomplete_unsettled"
        " initial_delivery_count max_message_size offered_capabilities desired_capabilities properties",
    ),
    0x13: (
        "flow",
        "next_incoming_id incoming_window next_outgoing_id outgoing_window handle delivery_count link_credit available"
        " drain echo properties",
    ),
    0x14: (
        "transfer",
        "handle delivery_id delivery_tag message_format settled more rcv_settle_mode state resume aborted batchable",
    ),
    0x15: ("disposition", "role first last settled state batchable"),
    0x16: ("detach", "handle closed error"),
    0x17: ("end", "error"),
    0x18: ("close", "error"),
    0x40: ("sasl_mechanisms", "sasl_server_mechanisms"),
    0x41: ("sasl_init", "mechanism initial_response hostname"),
    0x44: ("sasl_outcome", "code additional_data"),
}
_NAMES = {code: (name, tuple(fields.split())) for code, (name, fields) in _FIELDS.items()}
_CODES = {name: (code, fields) for code, (name, fields) in _NAMES.items()}

SOURCE_FIELDS = (
    "address durable expiry_policy timeout dynamic dynamic_node_properties distribution_mode filter default_outcome"
    " outcomes capabilities"
).split()
SOURCE, TARGET, ERROR = 0x28, 0x29, 0x1D
RECEIVED, ACCEPTED, REJECTED, RELEASED, MODIFIED = 0x23, 0x24, 0x25, 0x26, 0x27


@dataclass(frozen=True, slots=True)
class Performative:
    """One performative. Fields that were not sent are absent, and read as None."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields.get(name)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of type 0 (AMQP) or 1 (SASL). One without a performative only says that the peer is alive."""

    channel: int
    performative: Performative | None
    payload: bytes = b""
    kind: int = 0


def decode_frame(data: bytes) -> Frame:
    """The frame in ``data``, which holds exactly one. Raises ``DecodeError``."""
    offset, kind, channel = data[4] * 4, data[5], int.from_bytes(data[6:8], "big")
    if offset < MIN_FRAME_BYTES or offset > len(data) or kind not in (0, 1):
        raise DecodeError("a frame with a malformed header")
    if offset == len(data):
        return Frame(channel, None, kind=kind)
    decoder = Decoder(data[offset:])
    found = decoder.value()
    if not isinstance(found, Described) or found.descriptor not in _NAMES or not isinstance(found.value, list):
        raise DecodeError("a frame whose body is no performative")
    name, names = _NAMES[found.descriptor]
    if len(found.value) > len(names):
        raise DecodeError(f"more fields than {name} has")
    fields = {key: value for key, value in zip(names, found.value, strict=False) if value is not None}
    return Frame(channel, Performative(name, fields), data[offset + decoder.position :], kind)


def encode_frame(channel: int, performative: str, payload: bytes = b"", /, *, kind: int = 0, **fields: Any) -> bytes:
    """One frame as bytes."""
    code, names = _CODES[performative]
    values = [fields.pop(key, None) for key in names]
    if fields:
        raise TypeError(f"{performative} has no fields {sorted(fields)}")
    while values and values[-1] is None:
        values.pop()
    body = encode(Described(ULong(code), values)) + payload
    return _header(len(body), kind, channel) + body


def keep_alive() -> bytes:
    """An empty frame."""
    return _header(0, 0, 0)


def _header(body_bytes: int, kind: int, channel: int) -> bytes:
    return (body_bytes + 8).to_bytes(4, "big") + bytes((2, kind)) + channel.to_bytes(2, "big")


def error(condition: str, description: str = "", info: dict[Symbol, Any] | None = None) -> Described:
    """An AMQP error, for detach, end, close and rejected."""
    return Described(ULong(ERROR), [Symbol(condition), description, info])


def terminus(code: int, address: str | None, filters: dict[Symbol, Any] | None = None) -> Described:
    """A source (0x28) or target (0x29) at ``address``."""
    values: list[Any] = [address]
    if filters is not None:
        values += [None] * (SOURCE_FIELDS.index("filter") - 1) + [filters]
    return Described(ULong(code), values)


def address_of(found: Any) -> str | None:
    """The address in a source or target, or None."""
    values = found.value if isinstance(found, Described) else None
    address = values[0] if isinstance(values, list) and values else None
    return address if isinstance(address, str) else None


def filters_of(source: Any) -> dict[str, Any]:
    """The filters of a source."""
    values = source.value if isinstance(source, Described) else []
    index = SOURCE_FIELDS.index("filter")
    found = values[index] if isinstance(values, list) and len(values) > index else None
    return found if isinstance(found, dict) else {}
