"""Permission for one call of an agent, and the keys with which agents check it."""

from __future__ import annotations

from typing import Protocol

from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteRequest


class Grants(Protocol):
    """Mints execution grants (``engine.domain.grants``)."""

    async def mint(self, request: ExecuteRequest) -> str:
        """A grant for exactly this request, good for the next minutes and never beyond its deadline by more than a second.

        To be asked for when the call is made, not when it is queued. Raises ``LivoaError``: what the signer raises, or
        ``grants.inputs_invalid`` for inputs that have no canonical form.
        """
        ...

    async def jwks(self) -> JsonObject:
        """The public keys of everything that was minted here and may still be presented, as a JWKS document (RFC 7517)."""
        ...


class NoGrants:
    """For hosts that call no agents."""

    async def mint(self, request: ExecuteRequest) -> str:
        """Always raises: without a grant there is no call."""
        raise LivoaError("grants.not_configured", "no key for execution grants is configured", status=500)

    async def jwks(self) -> JsonObject:
        """There are no keys."""
        return {"keys": []}
