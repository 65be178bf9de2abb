"""AMQP 1.0 values as bytes and back (OASIS AMQP 1.0, part 1). Pure; it knows no frame and no message.

In Python: ``Symbol`` and ``Described`` are types of their own, integers carry their AMQP type when they are to be written as
one (``UInt`` and the like; a plain ``int`` is a long), timestamps are aware UTC datetimes in whole milliseconds. Everything that
is read is bounded by what was received; nesting is bounded by ``MAX_DEPTH``.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

MAX_DEPTH = 32
_EPOCH_AT = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TIMESTAMP_MS = 253_402_300_799_999
"""The end of the year 9999; later instants are read as this one."""


class DecodeError(ValueError):
    """The bytes are no AMQP value."""


class Symbol(str):
    """An AMQP symbol: ASCII text from a fixed vocabulary."""

    __slots__ = ()


class UByte(int):
    """To be written as ubyte."""


class UShort(int):
    """To be written as ushort."""


class UInt(int):
    """To be written as uint."""


class ULong(int):
    """To be written as ulong."""


class Int(int):
    """To be written as int."""


class SymbolArray(tuple[Symbol, ...]):
    """To be written as an array of symbols."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Described:
    """A value with what it means: a number of the specification, or a symbol."""

    descriptor: Any
    value: Any


_FIXED: dict[int, tuple[struct.Struct, Any]] = {
    0x50: (struct.Struct(">B"), int),
    0x60: (struct.Struct(">H"), int),
    0x70: (struct.Struct(">I"), int),
    0x80: (struct.Struct(">Q"), int),
    0x51: (struct.Struct(">b"), int),
    0x61: (struct.Struct(">h"), int),
    0x71: (struct.Struct(">i"), int),
    0x81: (struct.Struct(">q"), int),
    0x52: (struct.Struct(">B"), int),
    0x53: (struct.Struct(">B"), int),
    0x54: (struct.Struct(">b"), int),
    0x55: (struct.Struct(">b"), int),
    0x56: (struct.Struct(">B"), bool),
    0x72: (struct.Struct(">f"), float),
    0x82: (struct.Struct(">d"), float),
    0x83: (struct.Struct(">q"), lambda ms: from_ms(ms)),
}
_EMPTY: dict[int, Any] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0}
_BINARY, _STRING, _SYMBOL = (0xA0, 0xB0), (0xA1, 0xB1), (0xA3, 0xB3)


def from_ms(ms: int) -> datetime:
    """A timestamp: milliseconds since the Unix epoch."""
    return _EPOCH_AT + timedelta(milliseconds=max(0, min(ms, _MAX_TIMESTAMP_MS)))


def to_ms(at: datetime) -> int:
    """The timestamp of an aware datetime."""
    return (at - _EPOCH_AT) // timedelta(milliseconds=1)


class Decoder:
    """Reads values from one buffer, in order."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self.position = 0

    @property
    def at_end(self) -> bool:
        """True when everything was read."""
        return self.position >= len(self._data)

    def value(self, depth: int = 0) -> Any:
        """The next value. Raises ``DecodeError``."""
        if depth > MAX_DEPTH:
            raise DecodeError("nested too deeply")
        code = self._take(1)[0]
        if code == 0x00:
            descriptor = self.value(depth + 1)
            return Described(descriptor, self.value(depth + 1))
        return self._of(code, depth)

    def _of(self, code: int, depth: int) -> Any:
        if code in _EMPTY:
            return _EMPTY[code]
        if code == 0x45:
            return []
        if code in _FIXED:
            form, make = _FIXED[code]
            return make(form.unpack(self._take(form.size))[0])
        if code == 0x98:
            return uuid.UUID(bytes=bytes(self._take(16)))
        if code in _BINARY:
            return bytes(self._sized(code & 0xF0 == 0xB0))
        if code in _STRING:
            return _text(self._sized(code & 0xF0 == 0xB0), "utf-8")
        if code in _SYMBOL:
            return Symbol(_text(self._sized(code & 0xF0 == 0xB0), "ascii"))
        if code in (0xC0, 0xD0, 0xC1, 0xD1):
            return self._compound(code, depth)
        if code in (0xE0, 0xF0):
            return self._array(code == 0xF0, depth)
        raise DecodeError(f"there is no type 0x{code:02x}")

    def _sized(self, wide: bool) -> memoryview:
        return self._take(self._number(wide))

    def _number(self, wide: bool) -> int:
        size = 4 if wide else 1
        return int.from_bytes(self._take(size), "big")

    def _compound(self, code: int, depth: int) -> Any:
        wide = code in (0xD0, 0xD1)
        inner = Decoder(self._sized(wide))
        count = inner._number(wide)
        if count > len(inner._data):
            raise DecodeError("more elements than bytes")
        values = [inner.value(depth + 1) for _ in range(count)]
        if code in (0xC0, 0xD0):
            return values
        if count % 2:
            raise DecodeError("a map with a key and no value")
        try:
            return dict(zip(values[::2], values[1::2], strict=True))
        except TypeError as err:
            raise DecodeError("a map with a key that cannot be one") from err

    def _array(self, wide: bool, depth: int) -> list[Any]:
        inner = Decoder(self._sized(wide))
        count = inner._number(wide)
        if count > len(inner._data):
            raise DecodeError("more elements than bytes")
        code = inner._take(1)[0]
        descriptor = None
        if code == 0x00:
            descriptor = inner.value(depth + 1)
            code = inner._take(1)[0]
        if depth >= MAX_DEPTH:
            raise DecodeError("nested too deeply")
        values = [inner._of(code, depth + 1) for _ in range(count)]
        return [Described(descriptor, value) for value in values] if descriptor is not None else values

    def _take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self._data):
            raise DecodeError("the value is cut off")
        part = self._data[self.position : end]
        self.position = end
        return part


def _text(data: memoryview, encoding: str) -> str:
    try:
        return bytes(data).decode(encoding)
    except UnicodeDecodeError as err:
        raise DecodeError(f"text that is not {encoding}") from err


def encode(value: Any) -> bytes:
    """The bytes of a value. Raises ``TypeError`` for what AMQP has no type for."""
    if value is None:
        return b"\x40"
    if isinstance(value, bool):
        return b"\x41" if value else b"\x42"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return b"\x82" + struct.pack(">d", value)
    if isinstance(value, Symbol):
        return _variable(0xA3, value.encode("ascii"))
    if isinstance(value, str):
        return _variable(0xA1, value.encode())
    if isinstance(value, bytes | bytearray | memoryview):
        return _variable(0xA0, bytes(value))
    if isinstance(value, datetime):
        return b"\x83" + struct.pack(">q", to_ms(value))
    if isinstance(value, uuid.UUID):
        return b"\x98" + value.bytes
    if isinstance(value, Described):
        return b"\x00" + encode(value.descriptor) + encode(value.value)
    if isinstance(value, SymbolArray):
        return _symbols(value)
    if isinstance(value, list | tuple):
        return _compound(0xC0, len(value), b"".join(map(encode, value)))
    if isinstance(value, dict):
        pairs = b"".join(encode(key) + encode(item) for key, item in value.items())
        return _compound(0xC1, 2 * len(value), pairs)
    raise TypeError(f"AMQP has no type for {type(value).__name__}")


def _integer(value: int) -> bytes:
    if isinstance(value, UByte):
        return struct.pack(">BB", 0x50, value)
    if isinstance(value, UShort):
        return struct.pack(">BH", 0x60, value)
    if isinstance(value, UInt):
        return struct.pack(">BB", 0x52, value) if value < 256 else struct.pack(">BI", 0x70, value)
    if isinstance(value, ULong):
        return struct.pack(">BB", 0x53, value) if value < 256 else struct.pack(">BQ", 0x80, value)
    if isinstance(value, Int):
        return struct.pack(">Bi", 0x71, value)
    return struct.pack(">Bq", 0x81, value)


def _variable(code: int, data: bytes) -> bytes:
    if len(data) < 256:
        return bytes((code, len(data))) + data
    return bytes((code + 0x10,)) + len(data).to_bytes(4, "big") + data


def _compound(code: int, count: int, data: bytes) -> bytes:
    if not count and code == 0xC0:
        return b"\x45"
    if len(data) < 255 and count < 256:
        return bytes((code, len(data) + 1, count)) + data
    return bytes((code + 0x10,)) + (len(data) + 4).to_bytes(4, "big") + count.to_bytes(4, "big") + data


def _symbols(values: SymbolArray) -> bytes:
    parts = [value.encode("ascii") for value in values]
    data = b"\xa3" + b"".join(bytes((len(part),)) + part for part in parts)
    return b"\xe0" + bytes((len(data) + 1, len(parts))) + data
