"""The envelope: what was sealed comes back, and nothing else does."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.sealed.envelope import HEADER_BYTES, OVERHEAD_BYTES, RunSecrets, open_sealed, seal
from engine.domain.errors import LivoaError

KEY_ID = "0123456789abcdef" * 2
OURS = RunSecrets.of("contoso", "run-1", KEY_ID, bytes(range(32)))
NAME = "a" * 64


def refused(secrets: RunSecrets, name: str, stored: bytes) -> None:
    with pytest.raises(LivoaError) as caught:
        open_sealed(secrets, name, stored)
    assert caught.value.code == "payload.corrupt"


@given(st.binary(max_size=2_000))
def test_what_is_sealed_is_opened_and_grows_by_a_fixed_amount(data: bytes) -> None:
    stored = seal(OURS, NAME, data)
    assert open_sealed(OURS, NAME, stored) == data
    assert len(stored) == len(data) + OVERHEAD_BYTES


@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_byte_that_changes_is_noticed(data: bytes, draw: st.DataObject) -> None:
    stored = bytearray(seal(OURS, NAME, data))
    place = draw.draw(st.integers(0, len(stored) - 1))
    stored[place] ^= draw.draw(st.integers(1, 255))
    refused(OURS, NAME, bytes(stored))


def test_every_byte_counts() -> None:
    stored = seal(OURS, NAME, b"content")
    for place in range(len(stored)):
        changed = bytearray(stored)
        changed[place] ^= 1
        refused(OURS, NAME, bytes(changed))


@given(st.binary(max_size=40), st.data())
def test_what_is_cut_or_longer_is_noticed(data: bytes, draw: st.DataObject) -> None:
    stored = seal(OURS, NAME, data)
    refused(OURS, NAME, stored[: draw.draw(st.integers(0, len(stored) - 1))])
    refused(OURS, NAME, stored + draw.draw(st.binary(min_size=1, max_size=20)))


@given(st.binary(max_size=200))
def test_what_was_never_sealed_is_refused(stored: bytes) -> None:
    refused(OURS, NAME, stored)


@pytest.mark.parametrize(
    ("tenant", "run", "key_id", "key", "name"),
    [
        ("fabrikam", "run-1", KEY_ID, bytes(range(32)), NAME),
        ("contoso", "run-2", KEY_ID, bytes(range(32)), NAME),
        ("contoso", "run-1", "f" * 32, bytes(range(32)), NAME),
        ("contoso", "run-1", KEY_ID, bytes(32), NAME),
        ("contoso", "run-1", KEY_ID, bytes(range(32)), "b" * 64),
    ],
)
def test_an_object_is_bound_to_its_tenant_run_key_and_name(
    tenant: str, run: str, key_id: str, key: bytes, name: str
) -> None:
    refused(RunSecrets.of(tenant, run, key_id, key), name, seal(OURS, NAME, b"content"))


def test_the_same_content_looks_different_each_time_and_in_each_run() -> None:
    assert seal(OURS, NAME, b"content")[HEADER_BYTES:] != seal(OURS, NAME, b"content")[HEADER_BYTES:]
    digest = hashlib.sha256(b"content").hexdigest()
    theirs = RunSecrets.of("contoso", "run-2", KEY_ID, bytes(32))
    assert len({digest, OURS.name(digest), theirs.name(digest)}) == 3
    assert OURS.name(digest) == OURS.name(digest)


def test_each_use_has_a_key_of_its_own_and_none_is_shown() -> None:
    keys = {OURS.content_key, OURS.name_key, OURS.link_key, bytes(range(32))}
    assert len(keys) == 4
    assert not any(key.hex() in repr(OURS) or repr(key) in repr(OURS) for key in keys)
