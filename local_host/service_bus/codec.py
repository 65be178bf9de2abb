"""AMQP 1.0 values as bytes and back (OASIS AMQP 1.0, part 1). Pure; it knows no frame and no message.

In Python: ``Symbol`` and ``Described`` are types of their own, integers carry their AMQP type when they are to be written as
one (``UInt`` and the like; a plain ``int`` is a long), timestamps are aware UTC datetimes in whole milliseconds. Everything that
is read is bounded by what was received; nesting is bounded by ``MAX_DEPTH``.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

MAX_DEPTH = 32
T = TypeVar("T")
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


@dataclass(slots=True, unsafe_hash=True)
class Described:
    """A value with what it means: a number of the specification, or a symbol. Nobody changes one; frozen it is slow to make."""

    descriptor: Any
    value: Any


def from_ms(ms: int) -> datetime:
    """A timestamp: milliseconds since the Unix epoch."""
    return _EPOCH_AT + timedelta(milliseconds=max(0, min(ms, _MAX_TIMESTAMP_MS)))


def to_ms(at: datetime) -> int:
    """The timestamp of an aware datetime."""
    return (at - _EPOCH_AT) // timedelta(milliseconds=1)


class Decoder:
    """Reads values from one buffer, in order."""

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = bytes(data)
        self._end = len(self._data)
        self.position = 0

    @property
    def at_end(self) -> bool:
        """True when everything was read."""
        return self.position >= self._end

    def value(self, depth: int = 0) -> Any:
        """The next value. Raises ``DecodeError``."""
        if depth > MAX_DEPTH:
            raise DecodeError("nested too deeply")
        return self.of(self._data[self.skip(1)], depth)

    def of(self, code: int, depth: int) -> Any:
        """The value of a type whose code was read already."""
        read = _READERS.get(code)
        if read is None:
            raise DecodeError(f"there is no type 0x{code:02x}")
        return read(self, depth)

    def skip(self, size: int) -> int:
        """Where the next ``size`` bytes begin, which are taken."""
        at = self.position
        end = at + size
        if end > self._end:
            raise DecodeError("the value is cut off")
        self.position = end
        return at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        at = self.skip(size)
        return self._data[at : at + size]

    def number(self, size: int) -> int:
        """A length or count of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def within(self, width: int, depth: int, read: Callable[[Decoder, int, int], T]) -> T:
        """What ``read`` makes of the next part, which begins with its length and count, each of ``width`` bytes."""
        size = self.number(width)
        end, outer = self.skip(size) + size, self._end
        self.position, self._end = end - size, end
        try:
            count = self.number(width)
            if count > size:
                raise DecodeError("more elements than bytes")
            return read(self, count, depth)
        finally:
            self.position, self._end = end, outer


def _list(decoder: Decoder, count: int, depth: int) -> list[Any]:
    value = decoder.value
    return [value(depth + 1) for _ in range(count)]


def _map(decoder: Decoder, count: int, depth: int) -> dict[Any, Any]:
    values = _list(decoder, count, depth)
    if count % 2:
        raise DecodeError("a map with a key and no value")
    try:
        return dict(zip(values[::2], values[1::2], strict=True))
    except TypeError as err:
        raise DecodeError("a map with a key that cannot be one") from err


def _array(decoder: Decoder, count: int, depth: int) -> list[Any]:
    code = decoder.number(1)
    descriptor = None
    if code == 0x00:
        descriptor = decoder.value(depth + 1)
        code = decoder.number(1)
    if depth >= MAX_DEPTH:
        raise DecodeError("nested too deeply")
    values = [decoder.of(code, depth + 1) for _ in range(count)]
    return [Described(descriptor, value) for value in values] if descriptor is not None else values


def _described(decoder: Decoder, depth: int) -> Described:
    descriptor = decoder.value(depth + 1)
    return Described(descriptor, decoder.value(depth + 1))


def _text(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as err:
        raise DecodeError(f"text that is not {encoding}") from err


_Reader = Callable[[Decoder, int], Any]


def _fixed(form: str, make: Callable[[Any], Any] | None = None) -> _Reader:
    layout = struct.Struct(form)
    unpack, size = layout.unpack_from, layout.size

    def read(decoder: Decoder, _: int) -> Any:
        value = unpack(decoder._data, decoder.skip(size))[0]
        return value if make is None else make(value)

    return read


def _always(make: Callable[[], Any]) -> _Reader:
    return lambda _decoder, _depth: make()


def _sized(width: int, make: Callable[[bytes], Any]) -> _Reader:
    return lambda decoder, _: make(decoder.take(decoder.number(width)))


def _part(width: int, read: Callable[[Decoder, int, int], Any]) -> _Reader:
    return lambda decoder, depth: decoder.within(width, depth, read)


_READERS: dict[int, _Reader] = {
    0x00: _described,
    0x40: _always(lambda: None),
    0x41: _always(lambda: True),
    0x42: _always(lambda: False),
    0x43: _always(lambda: 0),
    0x44: _always(lambda: 0),
    0x45: _always(list),
    0x50: _fixed(">B"),
    0x51: _fixed(">b"),
    0x52: _fixed(">B"),
    0x53: _fixed(">B"),
    0x54: _fixed(">b"),
    0x55: _fixed(">b"),
    0x56: _fixed(">B", bool),
    0x60: _fixed(">H"),
    0x61: _fixed(">h"),
    0x70: _fixed(">I"),
    0x71: _fixed(">i"),
    0x72: _fixed(">f"),
    0x80: _fixed(">Q"),
    0x81: _fixed(">q"),
    0x82: _fixed(">d"),
    0x83: _fixed(">q", lambda ms: from_ms(ms)),
    0x98: lambda decoder, _: uuid.UUID(bytes=decoder.take(16)),
    0xA0: _sized(1, bytes),
    0xA1: _sized(1, lambda data: _text(data, "utf-8")),
    0xA3: _sized(1, lambda data: Symbol(_text(data, "ascii"))),
    0xB0: _sized(4, bytes),
    0xB1: _sized(4, lambda data: _text(data, "utf-8")),
    0xB3: _sized(4, lambda data: Symbol(_text(data, "ascii"))),
    0xC0: _part(1, _list),
    0xC1: _part(1, _map),
    0xD0: _part(4, _list),
    0xD1: _part(4, _map),
    0xE0: _part(1, _array),
    0xF0: _part(4, _array),
}


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
