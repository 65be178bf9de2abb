"""A token that was let in once is looked at again each time it is shown; only the arithmetic of its signature is remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.domain.errors import LivoaError
from engine.identity import validator as module
from engine.identity.keys import parse_jwks
from engine.identity.validator import JwtTokenValidator
from tests.unit.identity.tokens import (
    AUDIENCE,
    NOW,
    OTHER_TID,
    TID,
    Directory,
    FixedClock,
    StaticKeys,
    Token,
    jwk,
    jwks,
    tenant,
    user_claims,
    validator,
)


class World:
    """A validator of which everything can change while it lasts, and how many signatures it has worked out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.keys, self.tenants = FixedClock(), StaticKeys(), Directory(tenant("contoso", TID))
        self.validator = JwtTokenValidator(self.keys, self.tenants, self.clock, audience=AUDIENCE)
        self.worked_out = 0
        verify: Callable[..., Any] = module._verified_payload

        def counted(*arguments: Any) -> Any:
            self.worked_out += 1
            return verify(*arguments)

        monkeypatch.setattr(module, "_verified_payload", counted)

    async def refusal(self, token: str) -> str:
        with pytest.raises(LivoaError) as caught:
            await self.validator.validate(token)
        return caught.value.code


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_a_token_is_the_same_principal_each_time_and_its_signature_is_worked_out_once(world: World) -> None:
    token, other = Token().sign(), Token(user_claims(uti="token-2")).sign()
    first = await world.validator.validate(token)
    assert await world.validator.validate(token) == first
    assert world.worked_out == 1
    assert (await world.validator.validate(other)).token_id == "token-2"
    assert world.worked_out == 2


async def test_it_runs_out(world: World) -> None:
    token = Token(user_claims(exp=int(NOW.timestamp()) + 600)).sign()
    await world.validator.validate(token)
    world.clock.pass_s(661)
    assert await world.refusal(token) == "auth.token_expired"


async def test_a_change_of_the_tenant_is_seen_at_once(world: World) -> None:
    token = Token().sign()
    await world.validator.validate(token)
    for changed, code in (
        (tenant("contoso", TID, status="suspended"), "auth.tenant_suspended"),
        (tenant("contoso", TID, allowed_client_apps=()), "auth.client_not_allowed"),
        (tenant("contoso", OTHER_TID), "auth.tenant_unknown"),
    ):
        world.tenants._tenants = (changed,)
        assert await world.refusal(token) == code
    world.tenants._tenants = (tenant("other", TID),)
    assert (await world.validator.validate(token)).tenant_id == "other"


async def test_a_key_that_is_withdrawn_opens_nothing_any_more(world: World) -> None:
    token = Token().sign()
    await world.validator.validate(token)
    world.keys._keys = {}
    assert await world.refusal(token) == "auth.token_invalid"


async def test_another_key_of_the_same_name_has_to_have_signed_it(world: World) -> None:
    token = Token().sign()
    await world.validator.validate(token)
    world.keys._keys = parse_jwks(jwks(jwk("consumer") | {"kid": "directory"}))
    assert await world.refusal(token) == "auth.token_invalid"
    world.keys._keys = parse_jwks(jwks(jwk("directory")))
    assert (await world.validator.validate(token)).tenant_id == "contoso"


async def test_a_token_that_differs_in_its_signature_alone_is_another(world: World) -> None:
    token = Token().sign()
    await world.validator.validate(token)
    signed, _, signature = token.rpartition(".")
    turned = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert await world.refusal(f"{signed}.{turned}") == "auth.token_invalid"
    assert await world.refusal(f"{signed}.{turned}") == "auth.token_invalid"


async def test_what_is_remembered_is_bounded_and_only_what_is_genuine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_TOKENS", 2)
    one = validator()
    for number in range(4):
        await one.validate(Token(user_claims(uti=f"token-{number}")).sign())
    with pytest.raises(LivoaError):
        await one.validate(Token(key="consumer", kid="directory").sign())
    assert len(one._genuine) == 2
