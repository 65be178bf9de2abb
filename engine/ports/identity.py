"""Who calls: from a bearer token to a verified principal."""

from __future__ import annotations

from typing import Protocol

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
