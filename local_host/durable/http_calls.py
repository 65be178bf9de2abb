"""Durable HTTP calls (`context.call_http`): one request inside one activity.

Redirects are not followed. A 202 with a Location is polled here, inside the activity: in Azure the extension polls with extra
history ids that the Python SDK does not count. Managed-identity tokens do not exist on one machine, so such a call fails.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import aiohttp

from local_host.durable.clock import Clock
from local_host.durable.functions import ActivityError

_CONTENT_HEADERS = frozenset(
    {
        *("allow", "content-disposition", "content-encoding", "content-language", "content-length"),
        *("content-location", "content-md5", "content-range", "content-type", "expires", "last-modified"),
    }
)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one durable call."""

    timeout_s: float = 100.0
    max_response_bytes: int = 16 * 1024 * 1024
    default_poll_s: float = 30.0
    max_polls: int = 1000


class DurableHttp:
    """Performs the calls over one shared session."""

    def __init__(self, clock: Clock, limits: HttpLimits | None = None) -> None:
        self._clock, self._limits = clock, limits or HttpLimits()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the session, if one was opened."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, request_json: str) -> str:
        """Perform the SDK's `httpRequest`; returns the response object as JSON text. ActivityError on transport errors."""
        request = json.loads(request_json)
        if request.get("tokenSource"):
            raise ActivityError("NotSupportedException", "This host cannot obtain managed identity tokens.")
        try:
            return await self._exchange(request)
        except (aiohttp.ClientError, TimeoutError, ValueError) as err:
            raise ActivityError("HttpRequestException", str(err) or type(err).__name__) from err

    async def _exchange(self, request: Mapping[str, Any]) -> str:
        headers = {str(key): str(value) for key, value in (request.get("headers") or {}).items()}
        url, content = str(request["uri"]), request.get("content")
        response = await self._send(str(request["method"]), url, headers, content)
        for _ in range(self._limits.max_polls):
            location = _header(response, "Location")
            if response["statusCode"] != 202 or not location:
                break
            url = urljoin(url, location)
            await self._wait_s(_retry_after_s(response, self._limits.default_poll_s))
            response = await self._send("GET", url, headers, None)
        return json.dumps(response)

    async def _send(self, method: str, url: str, headers: Mapping[str, str], content: str | None) -> dict[str, Any]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._limits.timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        sent = dict(headers)
        if content is not None and not any(name.lower() == "content-type" for name in sent):
            sent["Content-Type"] = "text/plain; charset=utf-8"
        body = content.encode() if content is not None else None
        async with self._session.request(method, url, headers=sent, data=body, allow_redirects=False) as response:
            limit = self._limits.max_response_bytes
            chunks, size = [], 0
            async for chunk in response.content.iter_chunked(65_536):
                size += len(chunk)
                if size > limit:
                    raise ValueError(f"The response is larger than {limit} bytes")
                chunks.append(chunk)
            text = b"".join(chunks).decode(response.get_encoding() if response.charset else "utf-8", "replace")
            return {"statusCode": response.status, "headers": _headers(response), "content": text}

    async def _wait_s(self, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        alarm = self._clock.call_after(seconds, wake)
        try:
            await done
        finally:
            alarm.cancel()


def _headers(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Response headers without the content ones, as the extension returns them; repeated ones as a list."""
    found: dict[str, Any] = {}
    for name in response.headers:
        if name.lower() not in _CONTENT_HEADERS and name not in found:
            values = response.headers.getall(name)
            found[name] = values[0] if len(values) == 1 else list(values)
    return found


def _header(response: Mapping[str, Any], name: str) -> str | None:
    for key, value in response["headers"].items():
        if key.lower() == name.lower():
            return value if isinstance(value, str) else str(value[0])
    return None


def _retry_after_s(response: Mapping[str, Any], default_s: float) -> float:
    text = _header(response, "Retry-After") or ""
    return min(float(text), 3600.0) if text.isdecimal() else default_s
