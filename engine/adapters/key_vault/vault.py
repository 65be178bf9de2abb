"""One key in Azure Key Vault or a managed HSM, over its REST interface (api-version 7.4), through the egress guard."""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from engine.adapters.egress import GuardedClient
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.errors import LivoaError

VAULT_AUDIENCE = "https://vault.azure.net"
_API = "api-version=7.4"
_PATH = re.compile(r"/keys/([0-9A-Za-z-]{1,127})(?:/([0-9a-f]{32}))?/?")
_MAX_BYTES = 256 * 1024
_TIMEOUT_S = 5.0


class VaultKey:
    """Requests about the key at ``https://{vault}/keys/{name}``, with ``/{version}`` to stay with that one.

    Raises ``LivoaError("settings.invalid")`` for another address. ``unavailable`` makes the error for a vault that does not
    answer, refuses, or answers nonsense. ``ssl_context`` and ``allow_loopback`` are for a vault on this machine.
    """

    def __init__(
        self,
        key_url: str,
        credential: Callable[[], Awaitable[str]],
        unavailable: Callable[[str], LivoaError],
        *,
        ssl_context: ssl.SSLContext | None = None,
        allow_loopback: bool = False,
    ) -> None:
        parts = urlsplit(key_url)
        path = _PATH.fullmatch(parts.path)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.query or path is None:
            raise LivoaError("settings.invalid", "A key in a vault is https://VAULT/keys/NAME.", status=500)
        try:
            host = f"{parts.hostname}:{parts.port or 443}"
            rules = EgressRules.of([host], allow_private=True, allow_loopback=allow_loopback)
        except EgressRefusedError as err:
            raise LivoaError("settings.invalid", "The vault of a key has no ordinary host.", status=500) from err
        self._client = GuardedClient(rules, purpose="a key in a vault", ssl_context=ssl_context)
        self._credential, self._unavailable = credential, unavailable
        self._base = f"https://{parts.netloc}/keys/{path[1]}"
        self._name, self._pinned = path[1], path[2]

    @property
    def current(self) -> str:
        """The address of the version to use: the pinned one, else the vault's newest. It ends without a slash."""
        return f"{self._base}/{self._pinned}" if self._pinned is not None else self._base

    @property
    def is_pinned(self) -> bool:
        """Whether one version is used, whatever comes after it."""
        return self._pinned is not None

    @property
    def versions(self) -> str:
        """The address of the list of versions."""
        return f"{self._base}/versions"

    def own(self, kid: Any) -> str:
        """An address of a version that the vault gave us, when it is one of this key."""
        parts = urlsplit(kid if isinstance(kid, str) else "")
        path = _PATH.fullmatch(parts.path)
        if path is None or path[1] != self._name or path[2] is None:
            raise self._unavailable("the vault answered about another key")
        return f"{self._base}/{path[2]}"

    async def ask(self, method: str, url: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The vault's answer."""
        headers = {"Authorization": f"Bearer {await self._credential()}", "Content-Type": "application/json"}
        target = url if "api-version=" in url else f"{url}?{_API}"
        data = json.dumps(body).encode() if body is not None else None
        try:
            fetched = await self._client.fetch(
                method, target, deadline_s=_TIMEOUT_S, max_bytes=_MAX_BYTES, headers=headers, body=data
            )
            found = json.loads(fetched.body) if fetched.status == 200 else None
        except EgressRefusedError as err:
            raise self._unavailable(f"the vault cannot be reached: {err.code}") from err
        except ValueError as err:
            raise self._unavailable("the vault's answer is no JSON") from err
        if not isinstance(found, dict):
            raise self._unavailable(f"the vault answered with status {fetched.status}")
        return found

    def decoded(self, text: Any) -> bytes:
        """The bytes of a base64url text of the vault's."""
        try:
            return base64.urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}")
        except (binascii.Error, TypeError, ValueError) as err:
            raise self._unavailable("the vault answered with something that is not base64url") from err


def encoded(data: bytes) -> str:
    """Bytes as the vault wants them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
