"""The development issuer: the same door as everybody, on one machine only."""

from __future__ import annotations

import asyncio
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest

from engine.bootstrap.container import _DevelopmentCredential
from engine.domain.errors import LivoaError
from engine.domain.execute import EXECUTE_AUDIENCE
from engine.domain.principal import Role
from engine.identity import DevelopmentIssuer, FileKeySource, FirstOf, JwtTokenValidator, WithDevelopmentIssuer
from engine.identity.development import CLIENT_APP, ISSUER_TEMPLATE, JWKS_FILE, KEY_FILE
from tests.unit.identity.tokens import AUDIENCE, FixedClock, StaticKeys, Token, directory


@pytest.fixture
def issuer(tmp_path: Path) -> DevelopmentIssuer:
    return DevelopmentIssuer.open(tmp_path, FixedClock(), environment="local")


def validating(keys: object, environment: str = "local") -> JwtTokenValidator:
    tenants = WithDevelopmentIssuer(directory(), environment=environment)
    return JwtTokenValidator(keys, tenants, FixedClock(), audience=AUDIENCE)  # type: ignore[arg-type]  # any source


@pytest.mark.parametrize("kind", ["user", "app"])
async def test_its_tokens_pass_the_ordinary_validation(issuer: DevelopmentIssuer, kind: str) -> None:
    token = issuer.mint("contoso", "ana", [Role.RUNS_SUBMIT, Role.RUNS_READ], audience=AUDIENCE, kind=kind)  # type: ignore[arg-type]  # both
    principal = await validating(issuer).validate(token)

    assert (principal.tenant_id, principal.kind, principal.client_app) == ("contoso", kind, CLIENT_APP)
    assert principal.roles == {Role.RUNS_SUBMIT, Role.RUNS_READ}


async def test_the_engine_shows_agents_no_token_from_the_future(tmp_path: Path) -> None:
    """The clock was set back: agents would refuse every call until it has caught up."""
    clock = FixedClock()
    credential = _DevelopmentCredential(
        DevelopmentIssuer.open(tmp_path, clock, environment="local"), EXECUTE_AUDIENCE, clock
    )
    first = await credential()
    clock.pass_s(60)
    assert await credential() == first
    clock.pass_s(-3_600)
    issued = jwt.decode(await credential(), options={"verify_signature": False})["iat"]
    assert issued <= clock.now().timestamp()


async def test_people_and_tenants_are_told_apart_and_stay_the_same(issuer: DevelopmentIssuer) -> None:
    async def subject(tenant: str, user: str) -> str:
        return (await validating(issuer).validate(issuer.mint(tenant, user, [], audience=AUDIENCE))).subject

    assert await subject("contoso", "ana") == await subject("contoso", "ana")
    assert len({await subject(t, u) for t in ("contoso", "fabrikam") for u in ("ana", "bo")}) == 4


@pytest.mark.parametrize(("tenant", "code"), [("nobody", "auth.tenant_unknown"), ("sleepy", "auth.tenant_suspended")])
async def test_it_cannot_speak_for_a_tenant_that_may_not_act(issuer: DevelopmentIssuer, tenant: str, code: str) -> None:
    with pytest.raises(LivoaError) as caught:
        await validating(issuer).validate(issuer.mint(tenant, "ana", [], audience=AUDIENCE))
    assert caught.value.code == code


async def test_its_key_cannot_sign_for_the_real_directory(issuer: DevelopmentIssuer) -> None:
    real = jwt.decode(Token().sign(), options={"verify_signature": False})
    forged = jwt.encode(real, issuer._private_key, algorithm="RS256", headers={"kid": issuer.jwks()["keys"][0]["kid"]})
    with pytest.raises(LivoaError) as caught:
        await validating(FirstOf([StaticKeys(), issuer])).validate(forged)
    assert caught.value.code == "auth.issuer_wrong"


async def test_real_tokens_still_work_beside_it(issuer: DevelopmentIssuer) -> None:
    assert await validating(FirstOf([StaticKeys(), issuer])).validate(Token().sign())


@pytest.mark.parametrize("environment", ["azure", "", "LOCAL", "production"])
def test_it_is_refused_anywhere_but_on_one_machine(tmp_path: Path, environment: str) -> None:
    with pytest.raises(LivoaError, match="LIVOA_ENV=local") as caught:
        DevelopmentIssuer.open(tmp_path, FixedClock(), environment=environment)
    assert caught.value.code == "auth.development_issuer_refused"
    with pytest.raises(LivoaError):
        WithDevelopmentIssuer(directory(), environment=environment)
    assert list(tmp_path.iterdir()) == []


async def test_without_the_wrapper_its_issuer_is_nobodys(issuer: DevelopmentIssuer) -> None:
    plain = JwtTokenValidator(issuer, directory(), FixedClock(), audience=AUDIENCE)
    with pytest.raises(LivoaError) as caught:
        await plain.validate(issuer.mint("contoso", "ana", [], audience=AUDIENCE))
    assert caught.value.code == "auth.tenant_unknown"


def test_the_key_is_private_and_survives(tmp_path: Path) -> None:
    first = DevelopmentIssuer.open(tmp_path, FixedClock(), environment="local")
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)

    assert DevelopmentIssuer.open(tmp_path, FixedClock(), environment="local").jwks() == first.jwks()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == [JWKS_FILE, KEY_FILE]


def test_processes_that_start_together_end_with_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: DevelopmentIssuer.open(tmp_path, FixedClock(), environment="local"), range(4)))
    assert len({issuer.jwks()["keys"][0]["kid"] for issuer in opened}) == 1


def test_a_damaged_key_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("not a key")
    with pytest.raises(LivoaError, match="delete it"):
        DevelopmentIssuer.open(tmp_path, FixedClock(), environment="local")


async def test_another_process_can_verify_by_the_published_file(issuer: DevelopmentIssuer, tmp_path: Path) -> None:
    published = FileKeySource(tmp_path / JWKS_FILE, issuer=ISSUER_TEMPLATE)
    assert await validating(published).validate(issuer.mint("contoso", "ana", [], audience=AUDIENCE))
    assert b'"d"' not in (tmp_path / JWKS_FILE).read_bytes()
    assert (tmp_path / JWKS_FILE).stat().st_mode & 0o044


def test_agents_get_a_token_for_their_audience_with_the_one_role(issuer: DevelopmentIssuer) -> None:
    key = asyncio.run(issuer.key(issuer.jwks()["keys"][0]["kid"]))
    assert key is not None
    claims = jwt.decode(
        issuer.mint_for_agents(),
        key.public_key,
        algorithms=["RS256"],
        audience=EXECUTE_AUDIENCE,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    assert (claims["roles"], claims["idtyp"]) == (["Agent.Execute"], "app")
    assert "scp" not in claims


@pytest.mark.parametrize("lifetime_s", [0, -1, 86_401])
def test_a_token_cannot_be_made_to_last(issuer: DevelopmentIssuer, lifetime_s: int) -> None:
    with pytest.raises(LivoaError):
        issuer.mint("contoso", "ana", [], audience=AUDIENCE, lifetime_s=lifetime_s)
