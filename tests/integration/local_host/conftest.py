"""Starts sample apps on the embedded host, in this process, each with its own data directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from local_host.host import EmbeddedHost, HostOptions

APPS = Path(__file__).parent / "apps"
StartHost = Callable[..., Awaitable[EmbeddedHost]]


@pytest.fixture
async def start_host(tmp_path: Path) -> AsyncIterator[StartHost]:
    """`await start_host("name")` runs tests/integration/local_host/apps/name until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(app: str | Path, options: HostOptions | None = None) -> EmbeddedHost:
            app_dir = APPS / app if isinstance(app, str) else app
            host = EmbeddedHost(app_dir, tmp_path / "data", options or HostOptions(drain_s=2.0))
            return await stack.enter_async_context(host)

        yield start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that never follows redirects on its own account."""
    async with aiohttp.ClientSession() as session:
        yield session
