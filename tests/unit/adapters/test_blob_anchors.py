"""Anchors in Blob Storage, over real TLS on loopback, against a server that keeps blobs as the service does."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from engine.adapters.blob_anchors import BlobAnchors
from engine.adapters.files.signing_key import FileSigner
from engine.adapters.memory import FixedClock, MemoryAuditLog
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.checkpoint import Anchor
from engine.domain.errors import LivoaError
from engine.evidence.anchored import verify
from engine.evidence.checkpoints import Checkpointer
from engine.evidence.signed import public_keys
from tests.unit.identity.test_http_jwks import trust
from tests.unit.identity.tokens import NOW

__all__ = ["trust"]  # a fixture

TOKEN = "a-token-of-the-storage"


class Storage:
    """A container whose blobs are written once."""

    def __init__(self) -> None:
        self.url = ""
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.fault = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.method)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=403)
        if self.fault:
            return web.Response(status=self.fault)
        assert request.headers["x-ms-version"] >= "2017-11-09"  # the first that takes bearer tokens
        assert request.headers["x-ms-date"].endswith(" GMT")
        name = request.path.removeprefix("/evidence/livoa/")
        if request.method == "PUT":
            assert (request.headers["x-ms-blob-type"], request.headers["If-None-Match"]) == ("BlockBlob", "*")
            if name in self.blobs:
                return web.Response(status=409, headers={"x-ms-error-code": "BlobAlreadyExists"})
            self.blobs[name] = await request.read()
            return web.Response(status=201)
        if name not in self.blobs:
            return web.Response(status=404, headers={"x-ms-error-code": "BlobNotFound"})
        return web.Response(body=self.blobs[name] if request.method == "GET" else b"")


@pytest.fixture
async def storage(trust: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Storage]:
    served = Storage()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust[0])
    await site.start()
    served.url = f"https://127.0.0.1:{runner.addresses[0][1]}/evidence/livoa"
    yield served
    await runner.cleanup()


async def token() -> str:
    return TOKEN


@pytest.fixture
def anchors(storage: Storage, trust: tuple[ssl.SSLContext, ssl.SSLContext]) -> BlobAnchors:
    return BlobAnchors(storage.url, token, FixedClock(NOW), ssl_context=trust[1], allow_loopback=True)


async def test_checkpoints_are_anchored_and_hold_the_chain(
    storage: Storage, anchors: BlobAnchors, tmp_path_factory: pytest.TempPathFactory
) -> None:
    audit, signer = MemoryAuditLog(), FileSigner(tmp_path_factory.mktemp("k") / "key.pem", create=True)
    for number in range(5):
        entry = AuditEntry(tenant_id="contoso", entry_id=f"e{number}", type=AuditType.SYNTHESIS, at=NOW, actor="t:a")
        await audit.append(entry)
        await Checkpointer(audit, anchors, signer, FixedClock(NOW)).make("contoso")
    assert "contoso/000000000/000000000005.jws" in storage.blobs
    kept = await anchors.read("contoso", after=0, limit=99)
    records = await audit.read("contoso", after_seq=0, limit=99)
    report = verify(records, "contoso", kept, public_keys(await signer.public_pem()))
    assert (report.findings, report.checkpoints) == ([], 5)


async def test_an_anchor_is_written_once(storage: Storage, anchors: BlobAnchors) -> None:
    assert await anchors.put("contoso", Anchor(1, "a"))
    assert not await anchors.put("contoso", Anchor(1, "b"))
    assert await anchors.read("contoso", after=0, limit=9) == (Anchor(1, "a"),)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 100, 1_001])
async def test_the_latest_is_found_by_trying_and_remembered(storage: Storage, anchors: BlobAnchors, count: int) -> None:
    for number in range(1, count + 1):
        storage.blobs[f"contoso/{number // 1000:09d}/{number:012d}.jws"] = b"n%d" % number
    expected = Anchor(count, f"n{count}") if count else None
    assert await anchors.latest("contoso") == expected
    assert len(storage.asked) <= 24
    storage.asked.clear()
    assert await anchors.latest("contoso") == expected
    assert len(storage.asked) <= 2


async def test_pages_go_on_where_the_last_one_ended(storage: Storage, anchors: BlobAnchors) -> None:
    for number in range(1, 6):
        await anchors.put("contoso", Anchor(number, f"n{number}"))
    assert [a.number for a in await anchors.read("contoso", after=0, limit=2)] == [1, 2]
    assert [a.number for a in await anchors.read("contoso", after=2, limit=9)] == [3, 4, 5]
    assert await anchors.read("fabrikam", after=0, limit=9) == ()


@pytest.mark.parametrize("status", [401, 403, 409, 500, 503])
async def test_a_storage_that_does_not_answer_for_it_is_never_taken_for_an_empty_one(
    storage: Storage, anchors: BlobAnchors, status: int
) -> None:
    storage.fault = status
    for asking in (
        anchors.latest("contoso"),
        anchors.put("contoso", Anchor(1, "a")),
        anchors.read("contoso", after=0, limit=1),
    ):
        with pytest.raises(LivoaError) as raised:
            await asking
        assert (raised.value.code, raised.value.status) == ("anchors.unavailable", 503)
        assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["http://a.blob.example/c", "https://a.blob.example", "https://a.blob.example/c?sig=x", "https://u:p@a.example/c"],
)
def test_what_is_no_container_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(LivoaError) as raised:
        BlobAnchors(url, token, FixedClock(NOW))
    assert raised.value.code == "settings.invalid"
