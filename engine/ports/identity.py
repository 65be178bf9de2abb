"""Who calls: from a bearer token, or a signed envelope, to a verified principal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.domain.base import JsonValue
from engine.domain.errors import LivoaError
from engine.domain.principal import Principal


class TokenValidator(Protocol):
    """Validates access tokens. The only source of identity in the system."""

    async def validate(self, token: str) -> Principal:
        """The principal of a valid token.

        Raises ``LivoaError`` with status 401 and a code ``auth.*`` (``auth.token_invalid``, ``auth.token_expired``, …), or 403
        ``auth.tenant_suspended``; 503 ``auth.keys_unavailable`` when signing keys cannot be had. Messages say nothing about
        the token's content.
        """
        ...


@dataclass(frozen=True, slots=True)
class Speaker:
    """Whose refused token it was. Only what a verified signature of the tenant's own issuer vouches for."""

    tenant_id: str
    subject: str
    client_app: str


class TokenRefusedError(LivoaError):
    """A refusal of a token, or of a signed envelope, of which it is known for whom it speaks."""

    def __init__(self, cause: LivoaError, speaker: Speaker) -> None:
        super().__init__(
            cause.code,
            cause.message,
            status=cause.status,
            pointer=cause.pointer,
            violations=cause.violations,
            retry_after_s=cause.retry_after_s,
        )
        self.speaker = speaker


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signed envelope proves: who asks, under which id, and for what. ``message_id`` is the sender's own, and signed."""

    principal: Principal
    message_id: str
    request: JsonValue


class EnvelopeVerifier(Protocol):
    """Verifies messages that submit runs. Beside ``TokenValidator`` the only source of identity."""

    async def verify(self, message: bytes, *, max_bytes: int) -> SignedRequest:
        """The content of a message whose signature holds; ``max_bytes`` bounds the request in it.

        Raises ``LivoaError``: 413 ``message.too_large``, 400 ``message.malformed`` and ``json.*``, 401
        ``message.signature_invalid``, ``message.audience_wrong``, ``message.expired``, ``message.not_yet_valid``, 403
        ``auth.tenant_suspended``; a ``TokenRefusedError`` where the signature holds and the content does not.
        """
        ...


class NoEnvelopes:
    """Where no messages come in."""

    async def verify(self, message: bytes, *, max_bytes: int) -> SignedRequest:
        """See ``EnvelopeVerifier``. Raises ``LivoaError("bus.not_configured")``."""
        raise LivoaError("bus.not_configured", "No bus is configured.", status=503)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request that was turned away at the door or by a quota: why, at which route, and who it was where that is verified."""

    code: str
    route: str
    speaker: Speaker | None = None


class RejectionLog(Protocol):
    """Where rejections are kept. Bounded: nobody can fill it by knocking."""

    async def record(self, rejection: Rejection) -> None:
        """Keep it, or count it when there are too many. Never raises: the request is refused either way."""
        ...

    async def close(self) -> None:
        """Keep the counts of what is over and was only counted. Never raises; what cannot be kept yet is kept next time."""
        ...


class NoRejectionLog:
    """Keeps nothing. For tests of other things; the composition root always gives a real one."""

    async def record(self, rejection: Rejection) -> None:
        """See ``RejectionLog``."""

    async def close(self) -> None:
        """See ``RejectionLog``."""
