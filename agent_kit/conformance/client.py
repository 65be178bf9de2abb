"""The suite's caller: sends what it is told to, right or wrong, and reads whatever comes back within limits."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from yarl import URL

from agent_kit.authority import Authority
from agent_kit.guard import GuardedConnector
from engine.domain.base import JsonObject
from engine.domain.capped_body import BodyTooLargeError, Inflater
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.execute import MAX_RESPONSE_BYTES, NDJSON, ExecuteRequest, execution_id
from engine.domain.grants import GRANT_HEADER

_MAX_BYTES = 4 * MAX_RESPONSE_BYTES


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. ``document`` is the parsed JSON body, the last line of a stream, or None."""

    status: int
    media_type: str
    document: Any
    body: bytes
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """The code of a problem document."""
        return str(self.document.get("code", "")) if isinstance(self.document, dict) else ""

    def __str__(self) -> str:
        said = self.code or (self.document.get("status", "") if isinstance(self.document, dict) else "")
        return f"{self.status} {self.media_type or 'nothing'}" + (f" {said}" if said else "")


@dataclass(frozen=True, slots=True)
class Sending:
    """A request to send. None for token or grant leaves the header out."""

    request: ExecuteRequest
    token: str | None
    grant: str | None
    method: str = "POST"
    path: str = "/execute"
    body: bytes | None = None
    headers: Mapping[str, str] | None = None

    def but(self, **changes: Any) -> Sending:
        """The same with something changed."""
        return replace(self, **changes)


class Caller:
    """Calls one agent. ``EgressRefusedError`` for an address that has no ordinary form."""

    def __init__(self, url: str, authority: Authority, audience: str, timeout_s: float, tenant_id: str) -> None:
        # The address is the operator's, so it may be of this machine; a metadata address it never is.
        self._rules = EgressRules.of([_place(url)], allow_private=True, allow_loopback=True)
        self.url, self.authority, self.audience = url.rstrip("/"), authority, audience
        self._tenant_id = tenant_id
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._timeout_s = timeout_s

    def request(self, capability: str, inputs: JsonObject, **changes: Any) -> ExecuteRequest:
        """A request of a run of its own."""
        run_id = f"conformance-{secrets.token_hex(8)}"
        fields: dict[str, Any] = {
            "tenant_id": self._tenant_id,
            "run_id": run_id,
            "step_id": "check",
            "attempt": 1,
            "capability": capability,
            "inputs": inputs,
            "idempotency_key": f"{run_id}/check",
            "deadline_at": datetime.now(UTC) + timedelta(seconds=self._timeout_s),
            "plan_hash": "0" * 64,
        }
        return ExecuteRequest.model_validate(fields | changes)

    def good(self, request: ExecuteRequest) -> Sending:
        """The request with good papers."""
        token, grant = self.authority.token(audience=self.audience), self.grant(request)
        return Sending(request, token, grant)

    def grant(self, request: ExecuteRequest, **claims: Any) -> str:
        """A good grant, or one with other claims."""
        return self.authority.grant(request, audience=self.audience, **claims)

    def about(self, request: ExecuteRequest, method: str = "GET") -> Sending:
        """A question about a request's execution."""
        path = f"/executions/{execution_id(request.tenant_id, request.idempotency_key)}"
        return self.good(request).but(method=method, path=path, body=b"")

    async def send(self, sending: Sending) -> Reply:
        """The answer. Raises ``aiohttp.ClientError``, ``TimeoutError`` or ``BodyTooLargeError``."""
        headers = {"Content-Type": "application/json", "Accept": "application/json, application/problem+json"}
        if sending.method == "POST":
            headers["Idempotency-Key"] = sending.request.idempotency_key
        if sending.token is not None:
            headers["Authorization"] = f"Bearer {sending.token}"
        if sending.grant is not None:
            headers[GRANT_HEADER] = sending.grant
        body = sending.request.model_dump_json().encode() if sending.body is None else sending.body
        async with (
            aiohttp.ClientSession(
                connector=GuardedConnector(self._rules), timeout=self._timeout, trust_env=False, auto_decompress=False
            ) as session,
            session.request(
                sending.method,
                self.url + sending.path,
                data=body or None,
                headers=headers | dict(sending.headers or {}),
                allow_redirects=False,
            ) as response,
        ):
            held = Inflater(response.headers.get("Content-Encoding", ""), _MAX_BYTES)
            async for chunk in response.content.iter_chunked(65_536):
                held.feed(chunk)
            return _reply(response, held.body())

    async def result(self, sending: Sending) -> Reply:
        """The answer with the result: an accepted call is asked for until it has ended. Raises as ``send``."""
        async with asyncio.timeout(self._timeout_s):
            reply = await self.send(sending)
            while reply.status == 202 or _goes_on(reply):
                await asyncio.sleep(0.1)
                reply = await self.send(self.about(sending.request))
            return reply


def _place(url: str) -> str:
    try:
        parts = URL(url)
    except ValueError:
        raise EgressRefusedError("egress.host_invalid") from None
    if parts.scheme not in ("http", "https") or not parts.raw_host or parts.raw_query_string or parts.user is not None:
        raise EgressRefusedError("egress.host_invalid")
    return f"{parts.raw_host}:{parts.port}"


def _goes_on(reply: Reply) -> bool:
    return reply.status == 200 and isinstance(reply.document, dict) and reply.document.get("status") == "running"


def _reply(response: aiohttp.ClientResponse, body: bytes) -> Reply:
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    text = body.strip().rpartition(b"\n")[2] if media_type == NDJSON else body
    try:
        document = json.loads(text) if text else None
    except ValueError:
        document = None
    return Reply(response.status, media_type, document, body, dict(response.headers))


__all__ = ["BodyTooLargeError", "Caller", "Reply", "Sending"]
