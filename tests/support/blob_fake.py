"""One container of Blob Storage on loopback, as the SDK sees it: put, get, list and delete of block blobs, and its faults.

An independent model, written from the documented protocol. ``tests/contract/stores`` runs the same tests against Azurite where
there is one. What it does not model it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web

ACCOUNT, CONTAINER = "devstoreaccount1", "payloads"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that every emulator of the service publishes; it guards nothing."""
Fault = Callable[[web.Request], str | int | None]


class BlobFake:
    """``fault`` is asked before each request: a status to answer with, ``"lost"`` to carry it out and close the connection
    without an answer, ``"late"`` to carry it out and answer 500, or None. ``page`` is the most names in one answer to a
    listing. With ``empty_first`` a listing begins with a page that holds nothing, as the service's may."""

    def __init__(self, page: int = 3) -> None:
        self.empty_first = False
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.fault: Fault = lambda request: None
        self.missing = False
        self.page = page
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> BlobFake:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/{ACCOUNT}/{CONTAINER}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.method)
        assert request.headers["Authorization"].startswith(f"SharedKey {ACCOUNT}:")
        fault = self.fault(request)
        if isinstance(fault, int):
            return refusal(fault, "ServerBusy" if fault == 503 else "InternalError")
        answer = await self._carried_out(request)
        if fault == "lost":
            assert request.transport is not None
            request.transport.abort()
        return refusal(500, "OperationTimedOut") if fault == "late" else answer

    async def _carried_out(self, request: web.Request) -> web.StreamResponse:
        if self.missing:
            return refusal(404, "ContainerNotFound")
        container = f"/{ACCOUNT}/{CONTAINER}"
        if request.path == container and request.query.get("comp") == "list":
            return self._listed(request)
        name = request.path.removeprefix(f"{container}/")
        if request.method == "PUT":
            assert request.headers["x-ms-blob-type"] == "BlockBlob"
            assert "If-None-Match" not in request.headers
            self.blobs[name] = await request.read()
            return web.Response(status=201, headers=_facts())
        if name not in self.blobs:
            return refusal(404, "BlobNotFound")
        if request.method == "DELETE":
            del self.blobs[name]
            return web.Response(status=202)
        assert request.method == "GET"
        return self._read(request, self.blobs[name])

    def _read(self, request: web.Request, data: bytes) -> web.Response:
        if "x-ms-range" not in request.headers:
            return web.Response(body=data, headers=_facts())
        first, _, last = request.headers["x-ms-range"].removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        if not data:
            return refusal(416, "InvalidRange")
        span = {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"}
        return web.Response(status=206, body=part, headers=_facts() | span)

    def _listed(self, request: web.Request) -> web.Response:
        prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
        names = sorted(name for name in self.blobs if name.startswith(prefix) and name >= marker)
        size = 0 if self.empty_first and not marker else self.page
        shown, more = names[:size], names[size:]
        blobs = "".join(f"<Blob><Name>{escape(name)}</Name><Properties/></Blob>" for name in shown)
        following = more[0] if more else ""
        body = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{CONTAINER}">'
            f"<Prefix>{escape(prefix)}</Prefix><Blobs>{blobs}</Blobs><NextMarker>{following}</NextMarker></EnumerationResults>"
        )
        return web.Response(text=body, content_type="application/xml")


def refusal(status: int, code: str) -> web.Response:
    """An error as the service words it."""
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    return web.Response(status=status, text=body, content_type="application/xml", headers={"x-ms-error-code": code})


def _facts() -> dict[str, Any]:
    return {"ETag": '"0x1"', "Last-Modified": formatdate(usegmt=True), "x-ms-blob-type": "BlockBlob"}
