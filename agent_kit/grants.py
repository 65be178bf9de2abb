"""What may be done: verify the execution grant of a call and hold it against the request. There is no way to turn this off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agent_kit.auth import KeySet
from agent_kit.problems import RefusedError
from engine.domain.errors import Violation
from engine.domain.execute import EXECUTE_AUDIENCE, ExecuteRequest
from engine.domain.grants import (
    GRANT_ALGORITHM,
    GRANT_ISSUER,
    GRANT_TYPE,
    MAX_GRANT_BYTES,
    MAX_GRANT_LIFETIME_S,
    Grant,
    differences,
)

_LEEWAY_S = 30
_REQUIRED = ["exp", "iat", "iss", "aud", "jti"]


def _invalid() -> RefusedError:
    return RefusedError(403, "grant.invalid", "The grant is not valid here.")


@dataclass(frozen=True, slots=True)
class GrantCheck:
    """The check of every call's grant. ``keys`` are the orchestrator's, published at its ``/api/grants/keys``."""

    keys: KeySet
    audience: str = EXECUTE_AUDIENCE

    async def verify(self, headers: list[str]) -> Grant:
        """The grant in the ``Livoa-Grant`` headers of a request, when it is signed, ours and of now.

        Raises ``RefusedError``: 403 ``grant.missing``, ``grant.invalid``, ``grant.expired`` or ``grant.audience_wrong``; 503
        when the keys cannot be had. Messages say nothing about its content.
        """
        if len(headers) != 1 or not headers[0]:
            raise RefusedError(403, "grant.missing", "Send one Livoa-Grant header.")
        claims = await self._claims(headers[0])
        try:
            grant = Grant.model_validate(claims)
        except ValidationError:
            raise _invalid() from None
        if grant.exp - grant.iat > MAX_GRANT_LIFETIME_S + 1:
            raise _invalid()
        return grant

    async def _claims(self, token: str) -> dict[str, Any]:
        import jwt

        if len(token) > MAX_GRANT_BYTES:
            raise _invalid()
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            key = await self.keys.find(kid) if isinstance(kid, str) and header.get("typ") == GRANT_TYPE else None
            if key is None or key.algorithm != GRANT_ALGORITHM or key.issuer != GRANT_ISSUER:
                raise _invalid()
            found: dict[str, Any] = jwt.decode(
                token,
                key.public_key,
                algorithms=[GRANT_ALGORITHM],
                audience=self.audience,
                issuer=GRANT_ISSUER,
                leeway=_LEEWAY_S,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise RefusedError(403, "grant.expired", "The grant has expired.") from None
        except jwt.InvalidAudienceError:
            raise RefusedError(403, "grant.audience_wrong", "The grant is for somebody else.") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _invalid() from None
        return found

    def match(self, grant: Grant, request: ExecuteRequest) -> None:
        """Raises ``RefusedError`` 403 ``grant.mismatch``, naming the fields, unless the grant is for this very request."""
        found = differences(grant, request)
        if found:
            violations = [Violation(code="grant.mismatch", pointer=f"/{name}", message="not granted") for name in found]
            raise RefusedError(403, "grant.mismatch", "The grant is for another call.", violations=violations)
