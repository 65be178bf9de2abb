"""Signing keys: which ones count, how seldom they are fetched, and what happens when they cannot be."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engine.domain.errors import LivoaError
from engine.identity import FileKeySource, FirstOf, JwksCache, parse_jwks
from tests.unit.identity.tokens import (
    DIRECTORY_JWKS,
    TEMPLATE,
    FixedClock,
    StaticKeys,
    Token,
    jwk,
    jwks,
    rsa_key,
    validator,
)


class Endpoint:
    """A key endpoint that counts, and can be down."""

    def __init__(self, data: bytes = DIRECTORY_JWKS) -> None:
        self.data, self.down, self.fetches = data, False, 0

    async def __call__(self) -> bytes:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.down:
            raise OSError("down")
        return self.data


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


async def test_keys_are_fetched_once_a_day(endpoint: Endpoint, clock: FixedClock) -> None:
    cache = JwksCache(endpoint, clock)
    for _ in range(24):
        assert await cache.key("directory")
        clock.pass_s(3_599)
    assert endpoint.fetches == 1
    clock.pass_s(3_600)
    assert await cache.key("directory")
    assert endpoint.fetches == 2


async def test_keys_from_the_future_are_fetched_anew(endpoint: Endpoint, clock: FixedClock) -> None:
    """The clock was set back: they would pass for fresh until it has caught up, however often they are rotated."""
    cache = JwksCache(endpoint, clock)
    assert await cache.key("directory")
    clock.pass_s(-7_200)
    assert await cache.key("directory")
    assert endpoint.fetches == 2


async def test_a_clock_that_is_set_back_while_the_endpoint_is_down_refuses_nobody(
    endpoint: Endpoint, clock: FixedClock
) -> None:
    """They are as old as keys whose day is over: asked for anew now and then, good meanwhile, and not for ever."""
    cache = JwksCache(endpoint, clock)
    assert await cache.key("directory")
    endpoint.down = True
    clock.pass_s(-7_200)
    for _ in range(60):
        assert await cache.key("directory")
        clock.pass_s(1)
    assert 3 <= endpoint.fetches <= 8, "not for each token"
    clock.pass_s(6 * 86_400)
    with pytest.raises(LivoaError, match="keys"):
        await cache.key("directory")


async def test_callers_who_come_together_share_one_fetch(endpoint: Endpoint, clock: FixedClock) -> None:
    cache = JwksCache(endpoint, clock)
    found = await asyncio.gather(*(cache.key("directory") for _ in range(50)))
    assert all(found)
    assert endpoint.fetches == 1


async def test_a_thousand_unknown_kids_cost_one_fetch_in_five_minutes(endpoint: Endpoint, clock: FixedClock) -> None:
    cache = JwksCache(endpoint, clock)
    await cache.key("directory")
    for number in range(1_000):
        assert await cache.key(f"unknown-{number}") is None
        clock.pass_s(0.29)
    assert endpoint.fetches == 2
    clock.pass_s(11)
    await cache.key("unknown")
    assert endpoint.fetches == 3


async def test_a_rotated_key_is_found_at_once(endpoint: Endpoint, clock: FixedClock) -> None:
    cache = JwksCache(endpoint, clock)
    assert await cache.key("directory")
    endpoint.data = jwks(jwk("rotated"))
    assert await cache.key("rotated")


async def test_while_the_endpoint_is_down_known_keys_work_and_unknown_ones_are_unavailable(
    endpoint: Endpoint, clock: FixedClock
) -> None:
    cache = JwksCache(endpoint, clock)
    await cache.key("directory")
    endpoint.down = True
    clock.pass_s(90_000)

    assert await validator(keys=cache).validate(Token().sign())
    with pytest.raises(LivoaError) as caught:
        await validator(keys=cache).validate(Token(kid="unknown").sign())
    assert (caught.value.code, caught.value.status) == ("auth.keys_unavailable", 503)


async def test_a_dead_endpoint_is_not_asked_by_every_request(endpoint: Endpoint, clock: FixedClock) -> None:
    endpoint.down = True
    cache = JwksCache(endpoint, clock)
    for _ in range(100):
        with pytest.raises(LivoaError):
            await cache.key("directory")
    assert endpoint.fetches == 1
    endpoint.down = False
    clock.pass_s(10)
    assert await cache.key("directory")


async def test_keys_nobody_could_renew_for_a_week_are_not_trusted(endpoint: Endpoint, clock: FixedClock) -> None:
    cache = JwksCache(endpoint, clock)
    await cache.key("directory")
    endpoint.down = True
    clock.pass_s(7 * 86_400)
    with pytest.raises(LivoaError) as caught:
        await cache.key("directory")
    assert caught.value.status == 503


@pytest.mark.parametrize("data", [b"<html>", b"{}", b'{"keys": {}}', b'{"keys": [' + b"1," * 200 + b"1]}", b"\xff"])
async def test_an_answer_that_is_no_key_document_counts_as_a_failure(
    data: bytes, endpoint: Endpoint, clock: FixedClock
) -> None:
    cache = JwksCache(endpoint, clock)
    await cache.key("directory")
    endpoint.data = data
    clock.pass_s(90_000)
    assert await cache.key("directory")


UNUSABLE = {
    "for encryption": jwk("directory", use="enc"),
    "for another algorithm": jwk("directory", alg="RS512"),
    "symmetric": {"kty": "oct", "k": "c2VjcmV0", "kid": "directory", "issuer": TEMPLATE},
    "elliptic": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "directory", "issuer": TEMPLATE},
    "without kid": {k: v for k, v in jwk("directory").items() if k != "kid"},
    "without issuer": jwk("directory", issuer=None),
    "with a broken modulus": jwk("directory") | {"n": "!"},
    "with a modulus that is a number": jwk("directory") | {"n": 5},
    "too short": jwk("directory") | {"n": "AQAB"},
    "not an object": "directory",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_key_is_left_out_when_it_is(name: str) -> None:
    assert parse_jwks(jwks(UNUSABLE[name], jwk("good"))).keys() == {"good"}  # type: ignore[arg-type]  # broken on purpose


def test_a_key_of_1024_bits_is_left_out() -> None:
    from jwt.algorithms import RSAAlgorithm

    public = RSAAlgorithm.to_jwk(rsa_key("short", 1024).public_key(), as_dict=True)
    entry = {"kty": "RSA", "kid": "short", "issuer": TEMPLATE, "n": public["n"], "e": public["e"]}
    assert parse_jwks(jwks(entry)) == {}


def test_two_keys_of_one_kid_are_both_left_out() -> None:
    assert parse_jwks(jwks(jwk("directory"), jwk("attacker", kid="directory"))) == {}


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    source = FileKeySource(path, issuer=TEMPLATE)
    with pytest.raises(LivoaError) as caught:
        await source.key("directory")
    assert caught.value.status == 503

    path.write_bytes(jwks(jwk("directory", issuer=None)))
    assert await source.key("directory")
    path.write_bytes(jwks(jwk("rotated", issuer=None)))
    os.utime(path, ns=(1, 1))
    assert await source.key("directory") is None
    assert await source.key("rotated")


async def test_a_source_that_is_down_does_not_hide_what_another_knows(clock: FixedClock, endpoint: Endpoint) -> None:
    endpoint.down = True
    both = FirstOf([JwksCache(endpoint, clock), StaticKeys()])

    assert await both.key("directory")
    with pytest.raises(LivoaError) as caught:
        await both.key("unknown")
    assert caught.value.status == 503


async def test_a_document_without_a_usable_key_does_not_take_the_known_ones_away(
    endpoint: Endpoint, clock: FixedClock
) -> None:
    cache = JwksCache(endpoint, clock)
    assert await cache.key("directory")
    endpoint.data = jwks()
    clock.pass_s(86_400)
    assert await cache.key("directory")
