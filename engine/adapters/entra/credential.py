"""Who the engine is towards agents in Azure: its managed identity, through azure-identity, which caches and renews tokens."""

from __future__ import annotations

from typing import Any

from engine.domain.errors import LivoaError


class ManagedIdentityCredential:
    """``await credential()`` gives a bearer token for ``audience``. The SDK is imported at the first call."""

    def __init__(self, audience: str) -> None:
        self._scope = f"{audience}/.default"
        self._credential: Any = None

    async def __call__(self) -> str:
        """A valid token. Raises ``LivoaError("auth.identity_unavailable")`` (503) when there is no identity to use."""
        from azure.core.exceptions import AzureError

        if self._credential is None:
            from azure.identity.aio import DefaultAzureCredential

            self._credential = DefaultAzureCredential()
        try:
            token = await self._credential.get_token(self._scope)
        except AzureError as err:
            # Its message tells addresses and attempts of every kind of credential; the type is kept as the cause.
            raise LivoaError("auth.identity_unavailable", "no token of the app's own identity", status=503) from err
        return str(token.token)
