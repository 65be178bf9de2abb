"""The API behind one small client, so that the same cases run over handlers in memory and over a host's real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from engine.adapters.memory import SystemClock
from engine.bootstrap.settings import API_AUDIENCE
from engine.domain.principal import Role
from engine.identity import DevelopmentIssuer
from tests.unit.triggers.world import Answered, World

ROOT = Path(__file__).resolve().parents[3]
START_S = 40.0


class Api(Protocol):
    """A running API as a client of tenant contoso sees it."""

    async def send(
        self, method: str, target: str, *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answered:
        """One request with a good token; answered within seconds or failed."""
        ...

    async def is_untouched(self) -> bool:
        """True when no submission has left anything behind."""
        ...


class MemoryApi:
    """Handlers without a host."""

    def __init__(self, *, streaming: bool = False) -> None:
        self._world = World(streaming=streaming)

    async def send(
        self, method: str, target: str, *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answered:
        return await self._world.send(method, target, body=body, headers=headers or {})

    async def is_untouched(self) -> bool:
        return await self._world.is_untouched()


class HostApi:
    """The app on the embedded host, in a process of its own, over loopback."""

    def __init__(self, url: str, data: Path) -> None:
        import aiohttp

        self._url, self._data = url, data
        self._issuer = DevelopmentIssuer.open(data, SystemClock(), environment="local")
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=30), trust_env=False, auto_decompress=False
        )

    async def send(
        self, method: str, target: str, *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answered:
        from yarl import URL

        token = self._issuer.mint("contoso", "ana", (Role.RUNS_SUBMIT, Role.RUNS_READ), audience=API_AUDIENCE)
        sent = {"authorization": f"Bearer {token}"} | (headers or {})
        if method == "POST" and "content-type" not in sent:
            sent["content-type"] = "application/json"
        address = URL(self._url + target, encoded=True)
        async with self._session.request(method, address, data=body, headers=sent, allow_redirects=False) as response:
            return Answered(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())

    async def is_untouched(self) -> bool:
        return not any((await self.traces()).values())

    async def traces(self) -> dict[str, int]:
        """What submissions have left: listed runs, payloads on disk, rows of runs, audit records and orchestrations."""
        databases = [path for pattern in ("*.db", "*.sqlite") for path in self._data.rglob(pattern)]
        tables = ("runs", "audit_records", "instances")
        return {
            "listed": len((await self.send("GET", "/api/runs")).json["runs"]),
            "payloads": sum(path.is_file() for path in (self._data / "payloads").rglob("*")),
            **{table: sum(_rows(path, table) for path in databases) for table in tables},
        }

    async def close(self) -> None:
        await self._session.close()


def _rows(path: Path, table: str) -> int:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] if known else 0  # names are ours


@asynccontextmanager
async def host_api(data: Path, *, streaming: bool = False) -> AsyncIterator[HostApi]:
    """Start the embedded host with our app; stopped again at the end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LIVOA_", "OTEL_"))}
    environment |= {"LIVOA_ENV": "local", "LIVOA_DATA": str(data), "LIVOA_HTTP_STREAMING": "on" if streaming else "off"}
    command = ["-m", "local_host", "--app", str(ROOT), "--port", "0", "--data", str(data / "host"), "--json"]
    with (data / "host.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        assert line, (data / "host.log").read_text()[-4_000:]
        api = HostApi(json.loads(line)["url"], data)
        try:
            yield api
        finally:
            await api.close()
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
            await process.wait()
