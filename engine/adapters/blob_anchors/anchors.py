"""Signed checkpoints as blobs: one block blob each, named as in a folder, put with ``If-None-Match: *`` never written over.

That nobody else writes over or removes them is the container's policy, not ours: give it a locked time-based retention, in an
account of another trust domain, and this app's identity the right to add and read. It uses three operations of the REST interface
(Put Blob, Get Blob, Get Blob Properties): no listing is needed, because numbers have no gaps and the latest is found by trying.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from email.utils import format_datetime
from urllib.parse import quote, urlsplit

from engine.adapters.anchor_rules import anchor_name, anchors_unavailable
from engine.adapters.egress import GuardedClient
from engine.adapters.egress.client import Fetched
from engine.adapters.store_rules import bounded
from engine.domain.checkpoint import Anchor
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.errors import LivoaError
from engine.evidence.signed import MAX_JWS_BYTES
from engine.ports.clock import Clock

STORAGE_AUDIENCE = "https://storage.azure.com"
_VERSION = "2021-12-02"
_TIMEOUT_S = 10.0
_MAX_BYTES = max(MAX_JWS_BYTES + 1, 64 * 1024)
_THERE = frozenset({409, 412})
"""A conditional put of a blob that exists; a blob that a retention policy protects answers 409 as well."""


class BlobAnchors:
    """Implements ``Anchors`` over ``https://{account}/{container}[/{prefix}]``.

    Raises ``LivoaError("settings.invalid")`` for another address; methods raise ``LivoaError("anchors.unavailable")`` (503) and
    what the ``credential`` raises. ``ssl_context`` and ``allow_loopback`` are for a storage on this machine.
    """

    def __init__(
        self,
        container_url: str,
        credential: Callable[[], Awaitable[str]],
        clock: Clock,
        *,
        ssl_context: ssl.SSLContext | None = None,
        allow_loopback: bool = False,
    ) -> None:
        parts = urlsplit(container_url)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.query:
            raise LivoaError("settings.invalid", "The place of anchors is https://ACCOUNT/CONTAINER.", status=500)
        if not parts.path.strip("/"):
            raise LivoaError("settings.invalid", "The place of anchors needs a container.", status=500)
        try:
            host = f"{parts.hostname}:{parts.port or 443}"
            rules = EgressRules.of([host], allow_private=True, allow_loopback=allow_loopback)
        except EgressRefusedError as err:
            raise LivoaError("settings.invalid", "The place of anchors has no ordinary host.", status=500) from err
        self._client = GuardedClient(rules, purpose="anchors of checkpoints", ssl_context=ssl_context)
        self._base = f"https://{parts.netloc}/{parts.path.strip('/')}"
        self._credential, self._clock = credential, clock
        self._known: dict[str, int] = {}

    async def put(self, tenant_id: str, anchor: Anchor) -> bool:
        """See ``Anchors.put``."""
        headers = {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*", "Content-Type": "application/jose"}
        answer = await self._ask("PUT", tenant_id, anchor.number, headers, anchor.jws.encode())
        if answer.status == 201:
            return True
        if answer.status in _THERE and await self._is_there(tenant_id, anchor.number):
            return False
        raise anchors_unavailable(f"the storage answered with status {answer.status}")

    async def latest(self, tenant_id: str) -> Anchor | None:
        """See ``Anchors.latest``. One question more than nothing when there is nothing new since the last time."""
        low = self._known.get(tenant_id, 0)
        step = 1
        while await self._is_there(tenant_id, low + step):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if await self._is_there(tenant_id, middle) else (low, middle)
        self._known[tenant_id] = low
        return await self._get(tenant_id, low) if low else None

    async def read(self, tenant_id: str, *, after: int, limit: int) -> tuple[Anchor, ...]:
        """See ``Anchors.read``. At most 1,000 a call; ends where a number is missing."""
        found: list[Anchor] = []
        while len(found) < bounded(limit) and (anchor := await self._get(tenant_id, after + len(found) + 1)):
            found.append(anchor)
        return tuple(found)

    async def _is_there(self, tenant_id: str, number: int) -> bool:
        return _found(await self._ask("HEAD", tenant_id, number))

    async def _get(self, tenant_id: str, number: int) -> Anchor | None:
        answer = await self._ask("GET", tenant_id, number)
        # What is no text is no signed checkpoint either; it is refused where it is taken apart.
        return Anchor(number, answer.body.decode("latin-1")) if _found(answer) else None

    async def _ask(
        self, method: str, tenant_id: str, number: int, more: dict[str, str] | None = None, body: bytes | None = None
    ) -> Fetched:
        headers = {
            "Authorization": f"Bearer {await self._credential()}",
            "x-ms-version": _VERSION,
            "x-ms-date": format_datetime(self._clock.now(), usegmt=True),
        }
        url = f"{self._base}/{quote(anchor_name(tenant_id, number), safe='/~')}"
        try:
            return await self._client.fetch(
                method, url, deadline_s=_TIMEOUT_S, max_bytes=_MAX_BYTES, headers=headers | (more or {}), body=body
            )
        except EgressRefusedError as err:
            raise anchors_unavailable(err.code) from err


def _found(answer: Fetched) -> bool:
    if answer.status in (200, 404):
        return answer.status == 200
    raise anchors_unavailable(f"the storage answered with status {answer.status}")
