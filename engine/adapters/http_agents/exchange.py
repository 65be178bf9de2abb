"""One HTTP exchange with an agent: guarded, capped, without redirects, proxies, cookies or trust in what it says it sends."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from engine.adapters.egress import guarded_connector
from engine.adapters.egress.connector import Lookup, is_blocked_socket
from engine.adapters.http_agents.answers import RawAnswer, failed
from engine.domain.capped_body import BodyEncodingError, BodyTooLargeError, Inflater
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.execute import MAX_RESPONSE_BYTES, NDJSON, ExecuteFailed

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_CONNECT_TIMEOUT_S = 5.0
_CHUNK_BYTES = 64 * 1024
_MAX_LINE_BYTES = MAX_RESPONSE_BYTES + 1024
_MAX_STREAM_BYTES = 4 * MAX_RESPONSE_BYTES

SILENT = "agent.silent"

LineSink = Callable[[bytes], Awaitable[bool]]
"""Takes the lines of a stream, one by one, and says whether that was the last one of interest."""


class Exchange:
    """Requests to agents. One client session per event loop."""

    def __init__(self, rules: EgressRules, *, connections_per_agent: int, lookup: Lookup) -> None:
        self.rules = rules
        self._connections_per_agent, self._lookup = connections_per_agent, lookup
        self._sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ClientSession] = (
            weakref.WeakKeyDictionary()
        )

    async def send(
        self,
        method: Literal["GET", "POST", "DELETE"],
        url: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        lines: LineSink | None = None,
        silence_s: float | None = None,
    ) -> RawAnswer | ExecuteFailed:
        """The answer, or what its absence comes to. Lines of a stream go to ``lines``; the answer's body is then empty.

        ``SILENT`` when nothing comes for ``silence_s``: a node that is lost closes no connection. Raises ``EgressRefusedError``
        when the guard does not let it through; nothing has been sent then.
        """
        import aiohttp

        patience = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=silence_s)
        try:
            async with self._session().request(
                method, url, data=body, headers=headers, allow_redirects=False, timeout=patience
            ) as response:
                found = {name.lower(): value for name, value in response.headers.items()}
                if lines is not None and response.status == 200 and _media_type(found) == NDJSON:
                    async for line in _lines(response):
                        if await lines(line):
                            break
                    return RawAnswer(response.status, found, b"")
                inflater = Inflater(response.headers.get("Content-Encoding", ""), MAX_RESPONSE_BYTES)
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    inflater.feed(chunk)
                return RawAnswer(response.status, found, inflater.body())
        except BodyTooLargeError:
            return failed("agent.contract_violation", f"The agent's answer is larger than {MAX_RESPONSE_BYTES} bytes.")
        except BodyEncodingError:
            return failed("agent.contract_violation", "The agent's answer has an unacceptable content encoding.")
        except EgressRefusedError:
            raise
        except aiohttp.SocketTimeoutError:
            return failed(SILENT, "The agent says nothing.", retryable=True)
        except (aiohttp.ClientError, OSError) as error:
            if is_blocked_socket(error):
                raise EgressRefusedError("egress.address_blocked") from None
            # The type is enough to act on; the message would name addresses and headers.
            reason = type(error).__name__
            return failed("agent.unreachable", f"The agent cannot be reached: {reason}.", retryable=True)

    def _session(self) -> ClientSession:
        import aiohttp

        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            session = aiohttp.ClientSession(
                connector=guarded_connector(
                    self.rules, connections_per_host=self._connections_per_agent, lookup=self._lookup
                ),
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._sessions[loop] = session
        return session

    async def close(self) -> None:
        """Close the session of the running loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            with suppress(OSError):
                await session.close()


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def _lines(response: ClientResponse) -> AsyncIterator[bytes]:
    """Lines that are not blank, until there have been too many: who tells so much is not listened to any longer.

    ``BodyTooLargeError`` for a line that is too long.
    """
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise BodyEncodingError
    rest, total = bytearray(), 0
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        total += len(chunk)
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end]).strip()
            del rest[: end + 1]
            if line:
                yield line
        if len(rest) > _MAX_LINE_BYTES:
            raise BodyTooLargeError
        if total > _MAX_STREAM_BYTES:
            return
    if rest.strip():
        yield bytes(rest).strip()
