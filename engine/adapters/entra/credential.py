"""Who the engine is towards agents in Azure: its managed identity, through azure-identity, which caches and renews tokens."""

from __future__ import annotations

from typing import Any


class ManagedIdentityCredential:
    """``await credential()`` gives a bearer token for ``audience``. The SDK is imported at the first call."""

    def __init__(self, audience: str) -> None:
        self._scope = f"{audience}/.default"
        self._credential: Any = None

    async def __call__(self) -> str:
        """A valid token. Raises what azure-identity raises when there is no identity to use."""
        if self._credential is None:
            from azure.identity.aio import DefaultAzureCredential

            self._credential = DefaultAzureCredential()
        token = await self._credential.get_token(self._scope)
        return str(token.token)
