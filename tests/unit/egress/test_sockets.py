"""The guard at real sockets, the engine's and the agent kit's alike: what is refused never reaches a server."""

from __future__ import annotations

import asyncio
import gzip
import logging
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from agent_kit.egress import get_bytes
from agent_kit.guard import GuardedConnector
from engine.adapters.egress import GuardedClient, guarded_connector
from engine.domain.egress import EgressRefusedError, EgressRules
from tests.unit.identity.tokens import NOW, rsa_key

LOCAL = EgressRules.of(["127.0.0.1", "localhost"], allow_loopback=True)
CAP_BYTES = 256 * 1024


class Resolver:
    """Answers by a script, one entry a question, the last one for ever; and remembers what it was asked."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers, self.asked = list(answers), list[str]()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


class Fetch(Protocol):
    async def __call__(
        self, url: str, *, rules: EgressRules = LOCAL, resolver: Resolver | None = None, timeout_s: float = 5
    ) -> tuple[int, bytes]: ...


async def engine_fetch(
    url: str, *, rules: EgressRules = LOCAL, resolver: Resolver | None = None, timeout_s: float = 5
) -> tuple[int, bytes]:
    client = GuardedClient(rules, lookup=resolver) if resolver else GuardedClient(rules)
    fetched = await client.fetch("GET", url, deadline_s=timeout_s, max_bytes=CAP_BYTES)
    return fetched.status, fetched.body


async def kit_fetch(
    url: str, *, rules: EgressRules = LOCAL, resolver: Resolver | None = None, timeout_s: float = 5
) -> tuple[int, bytes]:
    more = {"lookup": resolver} if resolver else {}
    return await get_bytes(url, rules=rules, timeout_s=timeout_s, max_bytes=CAP_BYTES, **more)  # type: ignore[arg-type]  # ours


@pytest.fixture(params=[engine_fetch, kit_fetch], ids=["engine", "kit"])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    found: Fetch = request.param
    return found


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A raw server on loopback that keeps the head of every request."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self.heads, self.port = answer, list[bytes](), 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            await self._answer(writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the caller has gone, which is what most of these tests are about
        finally:
            writer.close()


def answering(head: str, body: bytes = b"{}") -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return answer


@asynccontextmanager
async def running(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


async def code_of(call: Awaitable[object]) -> str:
    with pytest.raises(EgressRefusedError) as caught:
        await call
    return caught.value.code


async def test_what_is_allowed_is_fetched(fetch: Fetch) -> None:
    async with running(answering("200 OK", b"[1]")) as server:
        assert await fetch(f"http://127.0.0.1:{server.port}/x") == (200, b"[1]")
        assert await fetch(f"http://localhost:{server.port}/x", resolver=Resolver(["127.0.0.1"])) == (200, b"[1]")
    assert len(server.heads) == 2


@pytest.mark.parametrize(
    "address",
    [
        "http://127.1:{port}/", "http://0x7f000001:{port}/", "http://2130706433:{port}/", "http://0177.0.0.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/", "http://127.0.0.2:{port}/", "http://localhost@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}@evil.test/", "http://evil.test\\@127.0.0.1:{port}/", "http://0.0.0.0:{port}/",
        "http://127.0.0.1.nip.io:{port}/", "https://evil.test/", "ftp://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "",
        "http://169.254.169.254/latest/meta-data/", "http://168.63.129.16/", "http://[::1]:{port}/",
    ],
)  # fmt: skip
async def test_an_address_that_only_looks_allowed_is_not_called(fetch: Fetch, address: str) -> None:
    resolver = Resolver(["127.0.0.1"])
    async with running(answering("200 OK")) as server:
        code = await code_of(fetch(address.format(port=server.port), resolver=resolver))
    assert code in {"egress.scheme", "egress.userinfo", "egress.host_invalid", "egress.not_allowed"}
    assert (server.heads, resolver.asked) == ([], [])


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["::1"], []]
)
async def test_an_allowed_name_that_leads_elsewhere_is_not_followed(fetch: Fetch, addresses: list[str]) -> None:
    resolver = Resolver(addresses)
    async with running(answering("200 OK")) as server:
        rules = EgressRules.of([f"api.example.com:{server.port}"], allow_loopback=True)
        code = await code_of(fetch(f"https://api.example.com:{server.port}/", rules=rules, resolver=resolver))
    assert code == ("egress.address_blocked" if addresses else "egress.unresolved")
    assert server.heads == []
    assert resolver.asked == ["api.example.com"]


async def test_a_name_that_changes_its_mind_is_asked_once_and_connected_to_what_was_checked(fetch: Fetch) -> None:
    """Rebinding: the first answer is good, the next one is not. There is no next one between check and connection."""
    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    async with running(answering("200 OK", b"[2]")) as server:
        url = f"http://localhost:{server.port}/"
        assert await fetch(url, resolver=resolver) == (200, b"[2]")
        assert resolver.asked == ["localhost"]
        assert await code_of(fetch(url, resolver=resolver)) == "egress.address_blocked"
    assert len(server.heads) == 1


async def test_a_redirect_is_not_followed(fetch: Fetch) -> None:
    resolver = Resolver(["127.0.0.1"])
    moved = answering("302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/")
    async with running(moved) as server:
        assert await code_of(fetch(f"http://localhost:{server.port}/", resolver=resolver)) == "egress.redirect"
    assert len(server.heads) == 1
    assert resolver.asked == ["localhost"]


async def test_a_bomb_is_stopped_at_the_cap(fetch: Fetch) -> None:
    """An endless gzip stream of zeros: read to its end, this test would never end."""
    sent = 0

    async def bomb(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n")
        while True:
            piece = packer.compress(bytes(128 * 1024)) + packer.flush(zlib.Z_SYNC_FLUSH)
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async with running(bomb) as server:
        assert await code_of(fetch(f"http://127.0.0.1:{server.port}/", timeout_s=30)) == "egress.too_large"


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip"])
async def test_an_encoding_nobody_asked_for_is_refused(fetch: Fetch, encoding: str) -> None:
    async with running(answering(f"200 OK\r\nContent-Encoding: {encoding}", gzip.compress(b"[]"))) as server:
        assert await code_of(fetch(f"http://127.0.0.1:{server.port}/")) == "egress.encoding"


async def test_a_declared_length_is_not_believed(fetch: Fetch) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(bytes(64 * 1024))
            await writer.drain()

    async with running(endless) as server:
        assert await code_of(fetch(f"http://127.0.0.1:{server.port}/")) == "egress.too_large"


async def test_an_answer_that_drips_is_ended_at_the_deadline(fetch: Fetch) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with running(drip) as server:
        assert await code_of(fetch(f"http://127.0.0.1:{server.port}/", timeout_s=0.15)) == "egress.timeout"


async def test_the_environments_proxy_is_not_used(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(answering("200 OK", b'"proxy"')) as proxy, running(answering("200 OK", b'"real"')) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await fetch(f"http://127.0.0.1:{server.port}/") == (200, b'"real"')
    assert proxy.heads == []


async def test_a_server_that_is_not_there_is_unreachable(fetch: Fetch) -> None:
    async with running(answering("nonsense")) as server:
        assert await code_of(fetch(f"http://127.0.0.1:{server.port}/")) == "egress.unreachable"
    assert await code_of(fetch(f"http://127.0.0.1:{server.port}/")) == "egress.unreachable"


Connector = Callable[[EgressRules], aiohttp.TCPConnector]


@pytest.mark.parametrize("connector", [guarded_connector, GuardedConnector])
async def test_the_connector_guards_by_itself(connector: Connector) -> None:
    """Whoever uses a session of its own: the destination is checked at every request, a redirect's and a proxy's too."""
    moved = answering("302 Found\r\nLocation: http://evil.test/")
    async with running(moved) as server, aiohttp.ClientSession(connector=connector(LOCAL)) as session:
        here = f"http://127.0.0.1:{server.port}/"
        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: session.get("http://evil.test/"),
            lambda: session.get(here, allow_redirects=True),
            lambda: session.get(here, proxy="http://127.0.0.1:9"),
        ]
        for call in refused:
            assert await code_of(call()) in {"egress.not_allowed", "egress.scheme"}
    assert len(server.heads) == 1


@pytest.mark.parametrize("connector", [guarded_connector, GuardedConnector])
async def test_the_socket_is_the_last_fence(connector: Connector) -> None:
    """Should an address get past everything else, no socket is made for it."""
    rules = EgressRules.of(["api.example.com"])
    async with running(answering("200 OK")) as server:
        made = connector(rules)
        make = made._socket_factory
        assert make is not None
        with pytest.raises(OSError, match="must not be called"):
            make((2, 1, 6, "", ("127.0.0.1", server.port)))
        await made.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context around one certificate for the name localhost, not for its address."""
    key, name = rsa_key("tls"), x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=3650))
        .not_valid_after(NOW + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_tls_and_host_keep_the_name_while_the_address_is_pinned(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    names: list[str | None] = []
    tls[0].sni_callback = lambda _socket, name, _context: names.append(name)
    async with running(answering("200 OK"), tls[0]) as server:
        client = GuardedClient(LOCAL, ssl_context=tls[1], lookup=Resolver(["127.0.0.1"]))
        url = f"https://localhost:{server.port}/"
        fetched = await client.fetch("GET", url, deadline_s=5, max_bytes=CAP_BYTES)
        assert fetched.status == 200
        by_address = f"https://127.0.0.1:{server.port}/"
        with pytest.raises(EgressRefusedError):  # the certificate is checked against what was asked for
            await client.fetch("GET", by_address, deadline_s=5, max_bytes=CAP_BYTES)
    assert names[0] == "localhost"
    assert f"Host: localhost:{server.port}".encode() in server.heads[0]


async def test_what_the_platform_itself_may_not_call_is_a_line_once_a_minute_and_names_no_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "livoa.security")
    client = GuardedClient(
        EgressRules.of(["vault.example"]), purpose="a key in a vault", lookup=Resolver(["169.254.169.254"])
    )
    for _ in range(3):
        for url, code in (
            ("https://elsewhere.example/SECRET", "egress.not_allowed"),
            ("https://vault.example/SECRET", "egress.address_blocked"),
        ):
            with pytest.raises(EgressRefusedError) as caught:
                await client.fetch("GET", url, deadline_s=5, max_bytes=CAP_BYTES)
            assert caught.value.code == code
    said = [(record.getMessage(), record.__dict__["code"]) for record in caplog.records]
    words = "a call of the platform itself was not let out: a key in a vault"
    assert said == [(words, "egress.not_allowed"), (words, "egress.address_blocked")]


async def test_a_service_that_is_out_of_order_is_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "livoa.security")
    async with running(answering("200 OK")) as server:
        url = f"http://127.0.0.1:{server.port}/"
    with pytest.raises(EgressRefusedError, match="reached"):
        await GuardedClient(LOCAL).fetch("GET", url, deadline_s=5, max_bytes=CAP_BYTES)
    assert caplog.records == []
