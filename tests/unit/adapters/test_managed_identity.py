"""No identity is an answer with a code, not an exception of somebody's SDK."""

from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError

from engine.adapters.entra import ManagedIdentityCredential
from engine.domain.errors import LivoaError


class _Nobody:
    async def get_token(self, scope: str) -> Any:
        raise ClientAuthenticationError(message="tried https://169.254.169.254 and a secret file")


async def test_a_missing_identity_is_a_refusal_that_names_nothing() -> None:
    credential = ManagedIdentityCredential("api://agents")
    credential._credential = _Nobody()
    with pytest.raises(LivoaError) as caught:
        await credential()
    assert (caught.value.code, caught.value.status) == ("auth.identity_unavailable", 503)
    assert "secret" not in caught.value.message
