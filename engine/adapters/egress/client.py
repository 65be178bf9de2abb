"""One bounded request to an allowed destination: no redirects, no proxies of the environment, no cookies, one deadline for all of
it, and a cap on what the answer becomes. Retries are the caller's business.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from engine.adapters.egress.connector import Lookup, guarded_connector, system_lookup
from engine.domain.capped_body import BodyEncodingError, BodyTooLargeError, Inflater
from engine.domain.egress import EgressRefusedError, EgressRules

_CHUNK_BYTES = 64 * 1024
TELL_EVERY_S = 60.0
GUARDED = frozenset(
    f"egress.{name}" for name in ("scheme", "userinfo", "host_invalid", "not_allowed", "address_blocked", "redirect")
)
"""What the guard refuses; other codes say that the service does not do its part."""

_LOG = logging.getLogger("livoa.security")


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer as it came: ``headers`` with lower-case names, ``body`` decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class GuardedClient:
    """Requests of the platform itself under ``rules``, for a ``purpose``: words for the log. A session lives for one request:
    what needs many has a connector of its own.

    What the guard does not let through is a line of the security log (``livoa.security``), once a minute for each code, and in no
    audit chain: a record is committed to with a key that a vault unwraps, and held by an anchor, so that writing one may need the
    very call that was refused.
    """

    def __init__(
        self,
        rules: EgressRules,
        *,
        purpose: str = "",
        ssl_context: ssl.SSLContext | None = None,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._rules, self._purpose, self._ssl, self._lookup = rules, purpose, ssl_context, lookup
        self._told: dict[str, float] = {}

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        deadline_s: float,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Fetched:
        """Send and read to the end within ``deadline_s``.

        Raises ``EgressRefusedError``: a destination or an address that is not allowed (nothing was sent), ``egress.redirect``,
        ``egress.too_large`` beyond ``max_bytes`` after decompression, ``egress.encoding``, ``egress.timeout``,
        ``egress.unreachable``.
        """
        try:
            return await self._answered(method, url, deadline_s, dict(headers or {}), body, max_bytes)
        except EgressRefusedError as refused:
            self._tell(refused.code)
            raise

    def _tell(self, code: str) -> None:
        """Of what the guard refused; what is merely out of order is told by who needed it."""
        now = time.monotonic()
        if code not in GUARDED or now - self._told.get(code, -TELL_EVERY_S) < TELL_EVERY_S:
            return
        self._told[code] = now
        _LOG.warning("a call of the platform itself was not let out: %s", self._purpose, extra={"code": code})

    async def _answered(
        self, method: str, url: str, deadline_s: float, headers: dict[str, str], body: bytes | None, max_bytes: int
    ) -> Fetched:
        import aiohttp

        try:
            async with asyncio.timeout(deadline_s):
                return await self._fetch(method, url, headers, body, max_bytes)
        except TimeoutError:
            raise EgressRefusedError("egress.timeout") from None
        except BodyTooLargeError:
            raise EgressRefusedError("egress.too_large") from None
        except BodyEncodingError:
            raise EgressRefusedError("egress.encoding") from None
        except (aiohttp.InvalidURL, ValueError):
            raise EgressRefusedError("egress.host_invalid") from None
        except (aiohttp.ClientError, OSError):
            # The message would name addresses; the code is enough to act on.
            raise EgressRefusedError("egress.unreachable") from None

    async def _fetch(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, max_bytes: int
    ) -> Fetched:
        import aiohttp
        from yarl import URL

        # Parsed once: what is checked is the object that is connected with, so no two parsers can disagree.
        target = URL(url)
        named = target.user is not None or target.password is not None
        self._rules.check_destination(target.scheme, target.raw_host or "", target.explicit_port, userinfo=named)
        async with (
            aiohttp.ClientSession(
                connector=guarded_connector(self._rules, lookup=self._lookup),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            session.request(
                method,
                target,
                data=body,
                headers={"Accept-Encoding": "identity"} | headers,
                allow_redirects=False,
                ssl=self._ssl or True,
            ) as response,
        ):
            if 300 <= response.status < 400:
                raise EgressRefusedError("egress.redirect")
            inflater = Inflater(response.headers.get("Content-Encoding", ""), max_bytes)
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                inflater.feed(chunk)
            found = {name.lower(): value for name, value in response.headers.items()}
            return Fetched(response.status, found, inflater.body())
