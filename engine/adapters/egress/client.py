"""One bounded request to an allowed destination: no redirects, no proxies of the environment, no cookies, one deadline for all of
it, and a cap on what the answer becomes. Retries are the caller's business.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from engine.adapters.egress.connector import Lookup, guarded_connector, system_lookup
from engine.domain.capped_body import BodyEncodingError, BodyTooLargeError, Inflater
from engine.domain.egress import EgressRefusedError, EgressRules

_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer as it came: ``headers`` with lower-case names, ``body`` decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class GuardedClient:
    """Requests under ``rules``. A session lives for one request: what needs many has a connector of its own."""

    def __init__(
        self, rules: EgressRules, *, ssl_context: ssl.SSLContext | None = None, lookup: Lookup = system_lookup
    ) -> None:
        self._rules, self._ssl, self._lookup = rules, ssl_context, lookup

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
        import aiohttp

        try:
            async with asyncio.timeout(deadline_s):
                return await self._fetch(method, url, dict(headers or {}), body, max_bytes)
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
