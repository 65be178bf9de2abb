"""Wrapping keys of runs in Key Vault, over real TLS on loopback, against a server that speaks its REST interface."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from engine.adapters.key_vault import KeyVaultWrapper
from engine.adapters.memory import FixedClock, MemoryRunKeys
from engine.adapters.sealed import RunKeyring
from engine.domain.errors import LivoaError
from engine.ports.run_keys import WrappedKey
from tests.unit.identity.test_http_jwks import trust

__all__ = ["trust"]  # a fixture

TOKEN = "a-token-of-the-vault"
OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Vault:
    """One RSA key with versions, as the service shows it."""

    def __init__(self) -> None:
        self.url, self.fault = "", ""
        self.asked: list[str] = []
        self.keys = [rsa.generate_private_key(65537, 2048)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        assert request.query["api-version"] == "7.4"
        if request.headers.get("Authorization") != f"Bearer {TOKEN}" or self.fault == "forbidden":
            return web.json_response({"error": {"code": "Forbidden"}}, status=403)
        if self.fault == "no-json":
            return web.Response(body=b"<html>")
        _, _, name, *version, operation = request.path.split("/")
        assert name == "content"
        number = int(version[0], 16) if version else len(self.keys)
        body = await request.json()
        assert body["alg"] == "RSA-OAEP-256"
        data, key = base64.urlsafe_b64decode(body["value"] + "=="), self.keys[number - 1]
        try:
            value = key.public_key().encrypt(data, OAEP) if operation == "wrapkey" else key.decrypt(data, OAEP)
        except ValueError:
            return web.json_response({"error": {"code": "BadParameter"}}, status=400)
        kid = f"{self.url}/keys/{'another' if self.fault == 'another' else name}/{number:032x}"
        return web.json_response({"kid": kid, "value": encoded(value)})


@pytest.fixture
async def vault(trust: Contexts) -> AsyncIterator[Vault]:
    served = Vault()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust[0]).start()
    served.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def token() -> str:
    return TOKEN


def wrapper_of(
    vault: Vault, trust: Contexts, path: str = "", credential: Callable[[], Awaitable[str]] = token
) -> KeyVaultWrapper:
    url = f"{vault.url}/keys/content{path}"
    return KeyVaultWrapper(url, credential, ssl_context=trust[1], allow_loopback=True)


async def test_a_key_of_a_run_is_wrapped_in_the_vault_and_opened_by_another_process(
    vault: Vault, trust: Contexts
) -> None:
    keys = MemoryRunKeys()
    made = await RunKeyring(keys, wrapper_of(vault, trust), FixedClock()).get("contoso", "run-1")
    assert await RunKeyring(keys, wrapper_of(vault, trust), FixedClock()).get("contoso", "run-1") == made
    first = f"{1:032x}"
    assert vault.asked == ["POST /keys/content/wrapkey", f"POST /keys/content/{first}/unwrapkey"]


async def test_an_older_version_opens_what_it_wrapped(vault: Vault, trust: Contexts) -> None:
    wrapper = wrapper_of(vault, trust)
    old = await wrapper.wrap(bytes(64))
    vault.keys.append(rsa.generate_private_key(65537, 2048))
    new = await wrapper.wrap(bytes(64))
    pinned = await wrapper_of(vault, trust, f"/{1:032x}").wrap(bytes(64))
    assert new.kek_id != old.kek_id == pinned.kek_id
    assert await wrapper.unwrap(old) == await wrapper.unwrap(new) == await wrapper.unwrap(pinned) == bytes(64)


async def test_a_changed_text_and_a_foreign_key_are_refused(vault: Vault, trust: Contexts) -> None:
    wrapper = wrapper_of(vault, trust)
    wrapped = await wrapper.wrap(bytes(64))
    elsewhere = wrapped.kek_id.replace("/content/", "/another/")
    changed = wrapped.data[:-1] + bytes([wrapped.data[-1] ^ 1])
    for bad in (WrappedKey(wrapped.kek_id, changed), WrappedKey(elsewhere, wrapped.data)):
        with pytest.raises(LivoaError) as caught:
            await wrapper.unwrap(bad)
        assert caught.value.code == "payload.key_unavailable"
    assert not any("another" in path for path in vault.asked)


@pytest.mark.parametrize("fault", ["forbidden", "no-json", "another"])
async def test_a_vault_that_will_not_is_an_outage_and_no_key_is_made(vault: Vault, trust: Contexts, fault: str) -> None:
    vault.fault = fault
    keys = MemoryRunKeys()
    with pytest.raises(LivoaError) as caught:
        await RunKeyring(keys, wrapper_of(vault, trust), FixedClock()).get("contoso", "run-1")
    assert (caught.value.code, caught.value.status) == ("payload.key_unavailable", 503)
    assert await keys.get("contoso", "run-1") is None


@pytest.mark.parametrize("url", ["http://vault/keys/a", "https://vault/secrets/a", "https://vault/keys/a?x=1", "a"])
def test_an_address_that_is_no_key_is_refused(url: str) -> None:
    with pytest.raises(LivoaError) as caught:
        KeyVaultWrapper(url, token)
    assert caught.value.code == "settings.invalid"


async def test_what_is_no_text_of_the_vaults_kind_is_refused(vault: Vault, trust: Contexts) -> None:
    found: dict[str, Any] = {"value": 3}
    wrapper = wrapper_of(vault, trust)
    with pytest.raises(LivoaError) as caught:
        wrapper._key.decoded(found["value"])
    assert caught.value.code == "payload.key_unavailable"
