"""The stack of one machine: the sample agents, the embedded host with our app, and workers, sharing one data folder.

Knows which processes there are and what they must be told; what the app does with it is the app's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.client import opener_for
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import progress
from cli.paths import ROOT, STACK_FILE, catalog_folder, running_stack
from cli.stack.supervisor import Child, ChildSpec, Supervisor
from cli.tokens import open_issuer
from sample_agents.endpoints import ENDPOINTS

HEALTH_TIMEOUT_S = 60.0
PORT_TAKEN = 5  # exit code of local_host
BUS_FILE = "service-bus.connection"  # in the host's data folder, while its bus is there
WORKER_DRAIN_S = 5
MAX_WORKERS = 8


@dataclass(frozen=True, slots=True)
class StackFacts:
    """What a client has to know: address of the API, the process to stop, the data folder."""

    url: str
    pid: int
    data: Path

    def as_json(self) -> dict[str, Any]:
        """The line that `up --json` prints."""
        return {"url": self.url, "pid": self.pid, "data": str(self.data)}


class LocalStack:
    """Agents, host and workers as supervised children. Use as an async context manager; leaving it stops everything."""

    def __init__(
        self,
        data: Path,
        port: int,
        notify: Callable[[str], None] = progress,
        *,
        host_settings: Mapping[str, str] | None = None,
        own_agents: Mapping[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        self._data = data
        self._port = port
        self._host_settings = dict(host_settings or {})
        self._own_agents = dict(own_agents or {})
        self._workers = workers
        self._supervisor = Supervisor(notify)
        self._owns_file = False
        self._agents_port = 0

    async def __aenter__(self) -> StackFacts:
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        other = running_stack(self._data)
        if other is not None:
            raise CliError(
                f"a stack is running on this folder already: {other.get('url')} (process {other.get('pid')})",
                hint=f"use it, stop it (kill {other.get('pid')}), or choose another folder with --data",
                code="stack.already_running",
            )
        try:
            return await self._start()
        except CliError as err:
            await self._close()
            raise await _explained(err) from err
        except BaseException:
            await self._close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def failed(self) -> None:
        """Raises CliError when a process of the stack cannot be kept alive; otherwise waits for ever."""
        await self._supervisor.failed()

    async def _start(self) -> StackFacts:
        open_issuer(self._data)  # the agents read its keys, so they must be there first
        with reserved_port() as port:
            agents, host, *workers = await self._start_processes(port)
        facts = StackFacts(str(host.facts["url"]), os.getpid(), self._data)
        await _until_healthy(facts.url)
        for child in (host, *workers):
            child.on_ready = lambda: self._write_file(facts, host, agents, workers)
        host.on_ready()
        return facts

    async def _start_processes(self, agents_port: int) -> list[Child]:
        """All at once, because each spends its first seconds on importing: the agents' address is decided before they have it."""
        self._agents_port = agents_port
        addresses = dict.fromkeys(ENDPOINTS, f"http://127.0.0.1:{agents_port}") | self._own_agents
        environment = {**self._host_settings, "LIVOA_AGENT_ENDPOINTS": json.dumps(addresses)}
        if self._workers:
            # The host writes the file when its bus is there; a worker tries until it is.
            environment["LIVOA_BUS_CONNECTION_FILE"] = str(self._data / "host" / BUS_FILE)
            environment["LIVOA_WORKER_DRAIN_S"] = os.environ.get("LIVOA_WORKER_DRAIN_S") or str(WORKER_DRAIN_S)
        names = [f"worker-{number}" for number in range(1, self._workers + 1)]
        specs = [
            self._spec("agents", self._agents_command, {}),
            self._spec("host", self._host_command, environment),
            *(self._spec(name, _worker_command(name), environment) for name in names),
        ]
        return await self._supervisor.start_all(specs)

    def _spec(
        self, name: str, command: Callable[[Mapping[str, Any]], list[str]], environment: Mapping[str, str]
    ) -> ChildSpec:
        common = {
            "LIVOA_ENV": "local",
            "LIVOA_DATA": str(self._data),
            "LIVOA_HTTP_STREAMING": os.environ.get("LIVOA_HTTP_STREAMING") or "on",
            "PYTHONUNBUFFERED": "1",
            # One thread per product of small matrices: two that fight for a busy core take ten times as long.
            "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS") or "1",
        }
        log = self._data / "logs" / f"{name}.log"
        hint = f"read {log}; ./livoa host --help tells the host's exit codes"
        taken = (
            {PORT_TAKEN: f"port {self._port} is taken: choose another with --port (0 for a free one)"}
            if name == "host"
            else {}
        )
        return ChildSpec(name, command, {**common, **environment}, log, ROOT, hint, taken)

    def _agents_command(self, last: Mapping[str, Any]) -> list[str]:
        from engine.domain.grants import GRANT_KEYS_FILE
        from engine.identity.development import ENGINE_APP, JWKS_FILE

        keys = ["--jwks", str(self._data / JWKS_FILE), "--caller", ENGINE_APP]
        keys += ["--grant-keys", str(self._data / GRANT_KEYS_FILE)]
        where = ["--port", str(_port_of(last) or self._agents_port), "--data", str(self._data / "agents")]
        return [sys.executable, "-m", "sample_agents", *where, *keys, "--json"]

    def _host_command(self, last: Mapping[str, Any]) -> list[str]:
        port = _port_of(last) or self._port
        where = ["--port", str(port), "--data", str(self._data / "host")]
        if self._workers:
            where += ["--amqp-port", str(last.get("amqp_port", 0))]
        return [sys.executable, "-m", "local_host", "--app", str(ROOT), *where, "--json"]

    def _write_file(self, facts: StackFacts, host: Child, agents: Child, workers: list[Child]) -> None:
        pids = {
            "host_pid": host.facts.get("pid"),
            "agents_pid": agents.facts.get("pid"),
            "worker_pids": {worker.spec.name: worker.facts.get("pid") for worker in workers},
        }
        content = {**facts.as_json(), **pids, "agents_url": agents.facts["url"]}
        temporary = self._data / f"{STACK_FILE}.new"
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        temporary.replace(self._data / STACK_FILE)
        self._owns_file = True

    async def _close(self) -> None:
        if self._owns_file:
            with contextlib.suppress(OSError):
                (self._data / STACK_FILE).unlink()
        await self._supervisor.stop()


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port of 127.0.0.1 for a process that is about to listen on it.

    On Linux it is held meanwhile: a socket that is bound with SO_REUSEADDR and does not listen keeps the system from giving the
    port to anybody who asks for a free one, and lets a listener that sets the option have it. Elsewhere it is let go at once.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


def _worker_command(name: str) -> Callable[[Mapping[str, Any]], list[str]]:
    def command(last: Mapping[str, Any]) -> list[str]:
        where = ["--name", name, "--health-port", str(_port_of(last) or 0)]
        return [sys.executable, "-m", "bus_worker", *where, "--json"]

    return command


def _port_of(facts: Mapping[str, Any]) -> int:
    return int(str(facts.get("url", ":0")).rsplit(":", 1)[1].strip("/"))


def _is_healthy(url: str) -> bool:
    try:
        with opener_for(url).open(f"{url}/api/health/live", timeout=5) as response:
            return int(response.status) == 200
    except OSError:
        return False


async def _explained(err: CliError) -> CliError:
    """The error of a process that would not start, or what is wrong with the catalog, which is the commonest cause of it."""
    if not err.code.endswith("_failed") or "--port" in err.hint:
        return err
    from cli.catalog_desk import examine

    found = (await examine(catalog_folder())).errors
    if not found:
        return err
    return CliError(
        f"the catalog cannot be used, so {err}",
        hint="mend what is named; ./livoa catalog check looks again",
        exit_code=err.exit_code,
        code="catalog.invalid",
        details=tuple(f"{fault.pointer}  {fault.code}: {fault.message}" for fault in found),
    )


async def _until_healthy(url: str) -> None:
    deadline = time.monotonic() + HEALTH_TIMEOUT_S
    while not await asyncio.to_thread(_is_healthy, url):
        if time.monotonic() > deadline:
            raise CliError(
                f"the host at {url} does not answer /api/health/live with 200",
                hint="read host.log in the logs folder of the data folder",
                exit_code=ExitCode.UNREACHABLE,
                code="stack.unhealthy",
            )
        await asyncio.sleep(0.1)
