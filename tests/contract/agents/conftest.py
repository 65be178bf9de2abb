"""One key pair for all tests of this folder: making one takes a while."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.identity.development import DevelopmentIssuer
from tests.contract.agents.harness import JWKS_FILE, Stand, WallClock, stand


@pytest.fixture(scope="session")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="session")
def issuer(key_folder: Path) -> DevelopmentIssuer:
    return DevelopmentIssuer.open(key_folder, WallClock(), environment="local")


@pytest.fixture(scope="session")
def jwks(issuer: DevelopmentIssuer, key_folder: Path) -> Path:
    return key_folder / JWKS_FILE


@pytest.fixture
async def probe_stand(issuer: DevelopmentIssuer, jwks: Path) -> AsyncIterator[Stand]:
    async with stand(issuer, jwks) as found:
        yield found
