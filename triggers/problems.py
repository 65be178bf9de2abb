"""Refusals as problem+json (RFC 9457): a stable ``type`` and ``code``, every offence with its JSON Pointer, no internals."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from engine.domain.errors import LivoaError
from engine.domain.masking import mask
from triggers.http_adapter import HttpResponse

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:livoa:problem:"


def problem(error: LivoaError, *, instance: str, incident: str | None = None) -> HttpResponse:
    """The response for a refusal. ``instance`` is the path that was asked for; ``incident`` finds the log entry of a 500."""
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + error.code,
        "title": _title(error.status),
        "status": error.status,
        "detail": mask(error.message),
        "instance": mask(instance),
        "code": error.code,
    }
    if errors := _errors(error):
        body["errors"] = errors
    if incident is not None:
        body["incident"] = incident
    # Escaped to ASCII, so that whatever stood in a path cannot make the answer unencodable.
    data = json.dumps(body, separators=(",", ":")).encode()
    return HttpResponse(error.status, (("content-type", PROBLEM_JSON), *_headers(error)), data)


def _errors(error: LivoaError) -> list[dict[str, str]]:
    if error.violations:
        return [violation.model_dump() | {"message": mask(violation.message)} for violation in error.violations]
    if error.pointer is not None:
        return [{"code": error.code, "pointer": error.pointer, "message": mask(error.message)}]
    return []


def _headers(error: LivoaError) -> list[tuple[str, str]]:
    headers = []
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(error.retry_after_s)))
    if error.status == 401:
        # RFC 6750 section 3: no error attribute when no token was presented at all.
        reason = "" if error.code == "auth.missing" else ', error="invalid_token"'
        headers.append(("www-authenticate", f'Bearer realm="livoa"{reason}'))
    elif error.status == 403:
        headers.append(("www-authenticate", 'Bearer realm="livoa", error="insufficient_scope"'))
    return headers


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def unexpected(incident: str) -> LivoaError:
    """What a caller is told about a surprise: nothing but a number to quote."""
    return LivoaError("internal.unexpected", f"Something went wrong; quote incident {incident}.", status=500)
