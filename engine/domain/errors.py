"""Errors with stable codes and the place of the offence (RFC 9457, problem+json).

``Violation`` is a finding as a value; checks return lists of them. ``LivoaError`` is raised at borders where a request
cannot go on; the HTTP adapter renders it. Messages never contain secrets, tokens or request bodies.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.domain.base import Frozen


class Violation(Frozen):
    """One thing wrong with an input: a stable ``code``, the JSON Pointer (RFC 6901) of the offence, and words for people."""

    code: str
    pointer: str
    message: str


class LivoaError(Exception):
    """A refusal with a stable code.

    ``status`` is the HTTP status a trigger answers with; ``violations`` lists every offence when there are several;
    ``retry_after_s`` becomes a Retry-After header.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 400,
        pointer: str | None = None,
        violations: Sequence[Violation] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.pointer = pointer
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class ConflictError(LivoaError):
    """The state has moved on (HTTP 409)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, status=409)


class NotFoundError(LivoaError):
    """Absent, or of another tenant: the two are indistinguishable on purpose (HTTP 404)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, status=404)
