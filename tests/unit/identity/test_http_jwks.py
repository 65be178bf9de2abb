"""Fetching the key document over real TLS on loopback: what is refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from engine.adapters.http_jwks.jwks import HttpJwksFetcher
from engine.domain.errors import LivoaError
from engine.identity import JwksCache
from tests.unit.identity.tokens import DIRECTORY_JWKS, NOW, FixedClock, rsa_key


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context around one self-signed certificate for 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key, name = rsa_key("tls"), x509.Name([])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=3650))
        .not_valid_after(NOW + timedelta(days=3650))
        .add_extension(alternative, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


class Server:
    def __init__(self) -> None:
        self.url, self.asked, self.over = "", list[str](), asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        match request.path:
            case "/keys":
                return web.Response(body=DIRECTORY_JWKS)
            case "/moved":
                return web.Response(status=302, headers={"Location": f"{self.url}/keys"})
            case "/large":
                response = web.Response(body=b" " * 300_000)
                response.enable_compression(web.ContentCoding.gzip)
                return response
            case "/slow":
                await self.over.wait()
        return web.Response(status=500, body=DIRECTORY_JWKS)


@pytest.fixture
async def server(trust: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Server]:
    handler = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust[0])
    await site.start()
    handler.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield handler
    handler.over.set()
    await runner.cleanup()


async def test_the_document_comes_over_tls(server: Server, trust: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    fetch = HttpJwksFetcher(f"{server.url}/keys", ssl_context=trust[1], allow_loopback=True)
    assert await JwksCache(fetch, FixedClock()).key("directory")


@pytest.mark.parametrize("path", ["moved", "large", "slow", "broken"])
async def test_a_bad_answer_is_unavailable(
    path: str, server: Server, trust: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    fetch = HttpJwksFetcher(f"{server.url}/{path}", ssl_context=trust[1], timeout_s=0.5, allow_loopback=True)
    with pytest.raises(LivoaError) as caught:
        await fetch()
    assert caught.value.status == 503
    assert server.asked == [f"/{path}"]


async def test_a_server_nobody_vouches_for_is_unavailable(server: Server) -> None:
    with pytest.raises(LivoaError):
        await HttpJwksFetcher(f"{server.url}/keys", allow_loopback=True)()
    assert server.asked == []


@pytest.mark.parametrize("url", ["http://keys.test/", "https://user:pass@keys.test/", "https://", "file:///etc/passwd"])
def test_only_a_plain_https_address_is_taken(url: str) -> None:
    with pytest.raises(LivoaError):
        HttpJwksFetcher(url)
