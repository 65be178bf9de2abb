"""Signing in Key Vault, over real TLS on loopback, against a server that speaks its REST interface and checks what it is sent."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from engine.adapters.files.anchors import FilesAnchors
from engine.adapters.key_vault import KeyVaultSigner
from engine.adapters.memory import FixedClock, MemoryAuditLog
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.errors import LivoaError
from engine.evidence.anchored import verify
from engine.evidence.checkpoints import Checkpointer
from engine.evidence.signed import public_keys
from engine.ports.checkpoints import with_current_key
from tests.unit.identity.test_http_jwks import trust
from tests.unit.identity.tokens import NOW

__all__ = ["trust"]  # a fixture

TOKEN = "a-token-of-the-vault"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Vault:
    """One key with versions, as the service shows it."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.asked: list[str] = []
        self.fault = ""
        self.disabled: set[str] = set()
        self.made: dict[str, int] = {}
        self.new_version()

    def new_version(self, curve: ec.EllipticCurve | None = None) -> str:
        version = f"{len(self.keys) + 1:032x}"
        self.keys[version] = ec.generate_private_key(curve or ec.SECP256R1())
        return version

    def kid(self, version: str) -> str:
        return f"{self.url}/keys/audit/{version}"

    def shown(self, version: str) -> dict[str, Any]:
        numbers, curve = self.keys[version].public_key().public_numbers(), self.keys[version].curve
        size = (curve.key_size + 7) // 8
        key = {"kid": self.kid(version), "kty": "EC-HSM", "crv": {"secp256r1": "P-256"}.get(curve.name, "P-384"),
               "x": encoded(numbers.x.to_bytes(size)), "y": encoded(numbers.y.to_bytes(size)), "key_ops": ["sign"]}  # fmt: skip
        return {"key": key, "attributes": {"enabled": True, "created": self.made.get(version, 1_700_000_000)}}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": {"code": "Unauthorized"}}, status=401)
        if self.fault == "status":
            return web.json_response({"error": {"code": "Forbidden"}}, status=403)
        if self.fault == "no-json":
            return web.Response(body=b"<html>")
        assert request.query["api-version"] == "7.4"
        name, _, rest = request.path.removeprefix("/keys/").partition("/")
        assert name == "audit"
        if rest == "versions":
            listed = list(self.keys)
            more = request.query.get("skip") is None and len(listed) > 1
            page = listed[:1] if more else listed[1:] or listed
            shown = [{"kid": self.kid(v), "attributes": {"enabled": v not in self.disabled}} for v in page]
            body: dict[str, Any] = {"value": shown}
            body["nextLink"] = f"{self.url}/keys/audit/versions?api-version=7.4&skip=1" if more else None
            return web.json_response(body)
        if (
            rest.partition("/")[0] in self.disabled
        ):  # of a disabled key the service gives out nothing, not even its public half
            return web.json_response(
                {"error": {"code": "Forbidden", "innererror": {"code": "KeyDisabled"}}}, status=403
            )
        if rest.endswith("/sign"):
            if self.fault == "throttled":
                return web.json_response({"error": {"code": "Throttled"}}, status=429)
            return web.json_response(await self.signed(rest.removesuffix("/sign"), request))
        return web.json_response(self.shown(rest or list(self.keys)[-1]))

    async def signed(self, version: str, request: web.Request) -> dict[str, str]:
        body = await request.json()
        assert body["alg"] == "ES256"
        digest = base64.urlsafe_b64decode(body["value"] + "==")
        assert len(digest) == 32
        r, s = decode_dss_signature(self.keys[version].sign(digest, ec.ECDSA(Prehashed(SHA256()))))
        value = r.to_bytes(32) + s.to_bytes(32)
        return {"kid": self.kid(version), "value": encoded(value[:-1] if self.fault == "short" else value)}


@pytest.fixture
async def vault(trust: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Vault]:
    served = Vault()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust[0])
    await site.start()
    served.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def token() -> str:
    return TOKEN


class Ticks:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def signer_of(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext], path: str = "", **more: Any
) -> KeyVaultSigner:
    credential = more.pop("credential", token)
    return KeyVaultSigner(
        f"{vault.url}/keys/audit{path}", credential, ssl_context=trust[1], allow_loopback=True, **more
    )


async def test_checkpoints_are_signed_in_the_vault_and_stay_checkable_when_the_key_changes(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    audit, anchors, ticks = MemoryAuditLog(), FilesAnchors(tmp_path), Ticks()
    older = signer_of(vault, trust, monotonic=ticks)
    for number, signer in enumerate([older, older, None, older]):
        entry = AuditEntry(tenant_id="contoso", entry_id=f"e{number}", type=AuditType.SYNTHESIS, at=NOW, actor="t:a")
        await audit.append(entry)
        if signer is None:  # another process, started after the key got a new version
            vault.new_version()
            signer = signer_of(vault, trust)
            ticks.now += 61
        await Checkpointer(audit, anchors, signer, FixedClock(NOW)).make("contoso")
    keys = public_keys(await older.public_pem())
    records = await audit.read("contoso", after_seq=0, limit=99)
    report = verify(records, "contoso", await anchors.read("contoso", after=0, limit=9), keys)
    assert (report.findings, report.checkpoints, len(keys)) == ([], 4, 2)


async def written(audit: MemoryAuditLog, number: int) -> None:
    await audit.append(
        AuditEntry(tenant_id="contoso", entry_id=f"e{number}", type=AuditType.SYNTHESIS, at=NOW, actor="t:a")
    )


async def test_a_version_that_is_disabled_once_the_next_signs_stops_nothing(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    audit, anchors, ticks = MemoryAuditLog(), FilesAnchors(tmp_path), Ticks()
    signer = signer_of(vault, trust, monotonic=ticks)
    maker = Checkpointer(audit, anchors, signer, FixedClock(NOW))
    await written(audit, 1)
    await maker.make("contoso")
    old = public_keys(await signer.public_pem())  # what an auditor keeps
    first = next(iter(vault.keys))
    vault.new_version()
    for _ in range(4):  # the timer, and nothing else is recorded meanwhile
        ticks.now += 61
        await maker.make("contoso")
    assert len(await anchors.read("contoso", after=0, limit=9)) == 2, "an idle chain is signed with the new key, once"
    vault.disabled.add(first)
    ticks.now += 61
    await written(audit, 2)
    restarted = signer_of(vault, trust)
    await Checkpointer(audit, anchors, restarted, FixedClock(NOW)).make("contoso")
    await written(audit, 3)
    await maker.make("contoso")
    keys = old | public_keys(await restarted.public_pem())
    report = verify(
        await audit.read("contoso", after_seq=0, limit=99),
        "contoso",
        await anchors.read("contoso", after=0, limit=9),
        keys,
    )
    assert (report.findings, report.checkpoints, len(keys)) == ([], 4, 2)


async def test_a_version_that_is_disabled_under_the_hand_is_given_up_at_once(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    signer = signer_of(vault, trust)
    assert await signer.key_id()
    first = next(iter(vault.keys))
    second = vault.new_version()
    vault.disabled.add(first)

    async def work(key_id: str) -> bytes:
        return await signer.sign(b"x", key_id)

    assert len(await with_current_key(signer, work)) == 64
    assert vault.asked[-1] == f"POST /keys/audit/{second}/sign"


async def test_a_signature_that_fails_by_itself_brings_no_new_version_to_sign_early(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """Whoever checks has not listed it yet, and would refuse what it signs."""
    signer = signer_of(vault, trust, monotonic=Ticks())
    before = await signer.key_id()
    vault.new_version()
    vault.fault = "throttled"
    with pytest.raises(LivoaError):
        await signer.sign(b"x", before)
    assert await signer.key_id() == before
    vault.fault = "status"  # the vault gives out nothing at all: that says nothing about a version either
    with pytest.raises(LivoaError):
        await signer.sign(b"x", before)
    with pytest.raises(LivoaError):
        await signer.key_id()
    vault.fault = ""
    assert await signer.key_id() == before


async def test_a_process_that_starts_right_after_a_rotation_signs_with_the_version_before_it(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    ticks, at = Ticks(), 1_800_000_000
    before = await signer_of(vault, trust).key_id()
    second = vault.new_version()
    vault.made[second] = at - 30
    started = signer_of(vault, trust, monotonic=ticks, wall=lambda: at)
    seen = [await started.key_id() == before]
    for _ in range(4):
        ticks.now += 61
        seen.append(await started.key_id() == before)
    assert seen == [True, True, True, False, False], "three minutes after it was made, and a look"
    assert await signer_of(vault, trust, wall=lambda: at + 180).key_id() != before, "others have listed it by now"
    vault.disabled.add(next(iter(vault.keys)))
    assert await signer_of(vault, trust, wall=lambda: at).key_id() != before, "there is no other to begin with"


async def test_a_new_version_signs_only_after_others_could_list_it(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    ticks = Ticks()
    signer = signer_of(vault, trust, monotonic=ticks)
    before = await signer.key_id()
    vault.new_version()
    seen = []
    for _ in range(4):
        ticks.now += 61
        seen.append(await signer.key_id() == before)
    assert seen == [True, True, False, False]


async def test_a_version_of_another_kind_hides_no_key(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    vault.new_version(ec.SECP384R1())
    assert len(public_keys(await signer_of(vault, trust).public_pem())) == 1


async def test_a_pinned_version_signs_whatever_comes_after_it(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    first = next(iter(vault.keys))
    vault.new_version()
    pinned, newest = signer_of(vault, trust, f"/{first}"), signer_of(vault, trust)
    assert await pinned.key_id() != await newest.key_id()
    await pinned.sign(b"x", await pinned.key_id())
    assert vault.asked[-1] == f"POST /keys/audit/{first}/sign"


@pytest.mark.parametrize("fault", ["status", "no-json", "short"])
async def test_a_vault_that_does_not_do_it_is_an_error_without_its_words(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext], fault: str
) -> None:
    signer = signer_of(vault, trust)
    key_id = await signer.key_id()
    vault.fault = fault
    with pytest.raises(LivoaError) as raised:
        await signer.sign(b"x", key_id)
    assert (raised.value.code, raised.value.status) == ("audit.key_unavailable", 503)
    assert TOKEN not in str(raised.value)
    vault.fault = ""
    assert len(await signer.sign(b"x", await signer.key_id())) == 64


async def test_a_wrong_token_and_a_vault_that_is_away_are_errors(
    vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def other() -> str:
        return "other"

    for signer in (
        signer_of(vault, trust, credential=other),
        KeyVaultSigner("https://127.0.0.1:9/keys/audit", token, ssl_context=trust[1], allow_loopback=True),
    ):
        with pytest.raises(LivoaError) as raised:
            await signer.key_id()
        assert raised.value.code == "audit.key_unavailable"


async def test_a_key_of_another_curve_signs_nothing(vault: Vault, trust: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    vault.new_version(ec.SECP384R1())
    with pytest.raises(LivoaError) as raised:
        await signer_of(vault, trust).key_id()
    assert raised.value.code == "audit.key_invalid"


@pytest.mark.parametrize(
    "url",
    [
        "http://vault.example/keys/audit",
        "https://vault.example/secrets/audit",
        "https://vault.example/keys/a/b",
        "https://u:p@vault.example/keys/audit",
        "https://vault.example/keys/audit?x=1",
        "signing-key.pem",
    ],
)
def test_what_is_no_address_of_a_key_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(LivoaError) as raised:
        KeyVaultSigner(url, token)
    assert raised.value.code == "settings.invalid"
