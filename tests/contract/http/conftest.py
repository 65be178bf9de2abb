"""The API in three shapes: handlers in memory, and the app on the embedded host with whole and with streamed bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.http.api import Api, MemoryApi, host_api


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "host", "streaming-host"])
async def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """One API per module and shape. Tests must leave it untouched."""
    if request.param == "memory":
        yield MemoryApi()
        return
    async with host_api(tmp_path_factory.mktemp("host"), streaming=request.param == "streaming-host") as running:
        yield running
