"""However odd a header or a claim is, the answer is a principal or a refusal: never a surprise."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.domain.errors import LivoaError
from engine.identity import JwksCache
from tests.unit.identity.tokens import (
    DIRECTORY_JWKS,
    FixedClock,
    Token,
    app_claims,
    hand_made,
    jwks,
    user_claims,
    validator,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
ODD = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
TIMES = st.sampled_from([-1, 0, 2**31, 253_402_300_799, 253_402_300_800, 2**40 - 1, 2**63, 1.5, "1", None, True])
HEADERS = ("alg", "typ", "kid", "x5t")


def outcome(token: str) -> str:
    """``principal``, or status and code of the refusal; anything else escapes."""
    try:
        asyncio.run(validator().validate(token))
    except LivoaError as err:
        return f"{err.status} {err.code}"
    return "principal"


@pytest.mark.parametrize("claims", [user_claims(), app_claims()], ids=["user", "app"])
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_claim_may_be_anything(claims: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*sorted(claims), "auth_time", "idtyp", "scp", "_claim_names", "hasgroups"]))
    found = outcome(Token(claims | {name: data.draw(ODD | TIMES)}).sign())
    assert found == "principal" or found.startswith(("401 auth.", "403 auth."))


@given(name=st.sampled_from(HEADERS), value=ODD)
@example(name="typ", value=["JWT"])
@example(name="typ", value={})
@example(name="alg", value=["RS256"])
@settings(max_examples=120, deadline=None)
def test_any_header_may_be_anything(name: str, value: Any) -> None:
    header = {"alg": "RS256", "typ": "JWT", "kid": "directory"} | {name: value}
    assert outcome(hand_made(header, user_claims(), None)) == "401 auth.token_invalid"


@pytest.mark.parametrize("name", ["auth_time", "exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [253_402_300_800, 2**40 - 1, -1])
def test_an_instant_outside_the_calendar_is_refused(name: str, value: int) -> None:
    assert outcome(Token(user_claims(**{name: value})).sign()) == "401 auth.token_invalid"


async def test_a_document_without_a_usable_key_does_not_take_the_known_keys_away() -> None:
    answers, clock = [DIRECTORY_JWKS, jwks()], FixedClock()

    async def fetch() -> bytes:
        return answers.pop(0)

    cache = JwksCache(fetch, clock)
    assert await cache.key("directory")
    clock.pass_s(90_000)
    assert await cache.key("directory")
    assert answers == []
