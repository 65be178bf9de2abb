"""Refusals of the HTTP layer as problem+json (RFC 9457). What a capability itself says travels as an ``ExecuteFailed``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.domain.base import JsonObject
from engine.domain.errors import Violation

PROBLEM_TYPE = "application/problem+json"

_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    408: "Out of time",
    409: "In flight",
    413: "Too large",
    415: "Wrong media type",
    422: "Not acceptable",
    429: "Busy",
    500: "Internal error",
    503: "Not available",
}


class RefusedError(Exception):
    """The call does not go on. ``retryable`` says whether the very same call may succeed later."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.violations = tuple(violations)

    @property
    def title(self) -> str:
        """What kind of refusal it is."""
        return _TITLES.get(self.status, "Refused")

    def body(self) -> JsonObject:
        """The problem document."""
        problem: JsonObject = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "retryable": self.retryable,
        }
        if self.violations:
            problem["violations"] = [violation.model_dump() for violation in self.violations]
        return problem

    def headers(self) -> dict[str, str]:
        """``Retry-After`` in whole seconds, and the challenge of a 401."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers
