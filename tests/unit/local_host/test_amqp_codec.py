"""AMQP values and frames: what is written is read again, by us and by the SDK's own decoder; nothing malformed gets through."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.servicebus._pyamqp._decode import _DECODE_BY_CONSTRUCTOR
from azure.servicebus._pyamqp._decode import decode_frame as sdk_decode_frame
from azure.servicebus._pyamqp._encode import encode_value as sdk_encode
from hypothesis import given
from hypothesis import strategies as st

from local_host.service_bus.codec import (
    MAX_DEPTH,
    DecodeError,
    Decoder,
    Described,
    Int,
    Symbol,
    SymbolArray,
    UByte,
    UInt,
    ULong,
    UShort,
    encode,
)
from local_host.service_bus.frames import decode_frame, encode_frame

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.uuids()
    | st.integers(0, 4_000_000_000_000).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
    | st.text(st.characters(max_codepoint=127), max_size=300).map(Symbol)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5), inner, max_size=5)
        | st.builds(Described, st.integers(0, 300).map(ULong), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    decoder = Decoder(encode(value))
    assert decoder.value() == value
    assert decoder.at_end


@pytest.mark.parametrize(
    "value", [UByte(255), UShort(65_535), UInt(0), UInt(2**32 - 1), ULong(0), ULong(2**64 - 1), Int(-(2**31))]
)
def test_integers_keep_their_value_in_every_width(value: int) -> None:
    assert Decoder(encode(value)).value() == value


def test_an_array_of_symbols_is_read_as_a_list() -> None:
    assert Decoder(encode(SymbolArray((Symbol("a"), Symbol("bc"))))).value() == ["a", "bc"]


@given(st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text(max_size=300) | st.binary(max_size=300))
def test_the_decoder_reads_what_the_sdk_writes(value: Any) -> None:
    out = bytearray()
    sdk_encode(out, value)
    assert Decoder(bytes(out)).value() == value


@given(st.integers(-(2**63), 2**63 - 1) | st.text(max_size=300) | st.binary(max_size=300))
def test_the_sdk_reads_what_the_encoder_writes(value: Any) -> None:
    data = memoryview(encode(value))
    _, found = _DECODE_BY_CONSTRUCTOR[data[0]](data[1:])
    assert found == (value.encode() if isinstance(value, str) else value)


def test_a_frame_is_read_again_and_read_by_the_sdk() -> None:
    data = encode_frame(
        3, "transfer", b"payload", handle=UInt(1), delivery_id=UInt(7), delivery_tag=b"t" * 16, settled=False, more=True
    )
    frame = decode_frame(data)
    assert frame.channel == 3
    assert frame.performative is not None
    assert (frame.performative.name, frame.performative["delivery_id"], frame.performative["more"]) == (
        "transfer",
        7,
        True,
    )
    assert frame.payload == b"payload"
    code, fields = sdk_decode_frame(memoryview(data)[8:])
    assert code == 0x14
    assert (fields[0], fields[1], bytes(fields[2]), bytes(fields[-1])) == (1, 7, b"t" * 16, b"payload")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        Decoder(data).value()


@pytest.mark.parametrize("seed", range(300))
def test_a_frame_that_was_changed_is_a_frame_or_a_decode_error(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(
        encode_frame(0, "open", container_id="c", hostname="h", properties={Symbol("a"): [1, {"b": None}]})
    )
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(4, len(data))] = chance.randrange(256)
    with contextlib.suppress(DecodeError):
        decode_frame(bytes(data))


def test_nesting_is_bounded() -> None:
    deep: Any = None
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]
    with pytest.raises(DecodeError, match="deep"):
        Decoder(encode(deep)).value()


def test_what_amqp_has_no_type_for_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        encode(object())
