"""Starting, killing and looking into a stack: ``up`` as its users start it, and a second host with other settings beside it."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.adapters.memory import SystemClock
from engine.bootstrap.settings import API_AUDIENCE
from engine.domain.principal import Role
from engine.identity import DevelopmentIssuer
from tests.e2e.client import Client

ROOT = Path(__file__).resolve().parents[2]
START_S = 90.0
BOTH = (Role.RUNS_SUBMIT, Role.RUNS_READ)


class Tokens:
    """Tokens of the development issuer in a data folder."""

    def __init__(self, data: Path) -> None:
        self._issuer = DevelopmentIssuer.open(data, SystemClock(), environment="local")

    def mint(self, tenant: str, user: str = "ana", roles: tuple[Role, ...] = BOTH, **more: Any) -> str:
        return self._issuer.mint(tenant, user, list(roles), **({"audience": API_AUDIENCE} | more))


@dataclass
class Stack:
    """A running stack. ``process`` is the one we started."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]

    def __post_init__(self) -> None:
        self.tokens = Tokens(self.data)

    def client(self, tenant: str = "contoso", user: str = "ana", roles: tuple[Role, ...] = BOTH) -> Client:
        return Client(self.url, lambda: self.tokens.mint(tenant, user, roles))

    def anonymous(self) -> Client:
        return Client(self.url, None)

    def facts(self) -> dict[str, Any]:
        """What ``up`` wrote about itself: addresses and process ids."""
        return dict(json.loads((self.data / "up.json").read_text(encoding="utf-8")))

    def connection_string(self) -> str:
        """What opens the Service Bus namespace of the host, where it speaks that."""
        return (self.data / "host" / "service-bus.connection").read_text().strip()

    def kill_host(self) -> None:
        """``kill -9`` of the Functions host alone."""
        os.kill(self.facts()["host_pid"], signal.SIGKILL)

    def kill_worker(self, name: str = "worker-1") -> None:
        """``kill -9`` of one worker; ``up`` starts it again."""
        os.kill(self.facts()["worker_pids"][name], signal.SIGKILL)

    def kill_everything(self) -> None:
        """``kill -9`` of ``up`` and of what it started."""
        facts = self.facts()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pid in (facts["host_pid"], facts["agents_pid"], *facts.get("worker_pids", {}).values()):
            until_gone(pid)

    def executions(self) -> dict[str, str]:
        """What the agents themselves keep of finished calls: a random number made by each execution, by idempotency key."""
        query = "SELECT key, token FROM executions WHERE response IS NOT NULL"
        return {str(key): str(token) for key, token in rows(self.data / "agents" / "executions.db", query)}

    def traces(self) -> dict[str, int]:
        """How much there is of everything a submission could leave behind. That somebody was turned away is on record too."""
        tables = {
            "runs": "runs",
            "audit_records": "audit_records WHERE entry_id NOT LIKE '%/auth.rejected' AND entry_id NOT LIKE 'checkpoint/%'",
            "events": "events",
        }
        counts = {
            name: int(rows(self.data / "livoa.db", f"SELECT count(*) FROM {source}")[0][0])  # names are ours
            for name, source in tables.items()
        }
        instances = rows(self.data / "host" / "durable.sqlite", "SELECT count(*) FROM instances")
        payloads = [path for path in (self.data / "payloads").rglob("*") if path.is_file()]
        return counts | {"instances": int(instances[0][0]), "payloads": len(payloads)}


def rows(database: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a database that another process has open."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(query, values).fetchall()


def until_gone(pid: int, patience_s: float = 10.0) -> None:
    """Wait until a process that is not our child has ended."""
    until = time.monotonic() + patience_s
    while Path(f"/proc/{pid}").exists() if sys.platform == "linux" else _lives(pid):
        assert time.monotonic() < until, f"process {pid} is still there"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def up(data: Path, *arguments: str, settings: dict[str, str] | None = None) -> Iterator[Stack]:
    """``./livoa up`` on a free port with further ``arguments`` and ``settings``; stopped at the end, however that comes."""
    command = [sys.executable, "-m", "cli", "up", "--port", "0", "--data", str(data), *arguments, "--json"]
    with _started(command, data, settings or {}) as (process, line):
        yield Stack(line["url"], data, process)


@contextmanager
def host_without_streaming(data: Path, beside: Stack, agents_url: str | None = None) -> Iterator[Stack]:
    """A host of its own whose responses do not stream, with the agents of another stack, whose keys it shares.

    ``agents_url`` says how it reaches them when not directly."""
    data.mkdir(parents=True, exist_ok=True)
    shutil.copy(beside.data / "development-key.pem", data / "development-key.pem")
    assert beside.anonymous().get("/api/grants/keys").status == 200, (
        "the first request for its keys makes a host make them"
    )
    shutil.copytree(beside.data / "grants", data / "grants")
    names = ("analytics", "crm", "insights", "mmm", "outbox", "rag", "rates")
    environment = {
        "LIVOA_ENV": "local",
        "LIVOA_DATA": str(data),
        "LIVOA_HTTP_STREAMING": "off",
        "LIVOA_AGENT_ENDPOINTS": json.dumps(dict.fromkeys(names, agents_url or beside.facts()["agents_url"])),
    }
    command = [
        sys.executable,
        "-m",
        "local_host",
        "--app",
        str(ROOT),
        "--port",
        "0",
        "--data",
        str(data / "host"),
        "--json",
    ]
    with _started(command, data, environment) as (process, line):
        yield Stack(line["url"], data, process)


@contextmanager
def host_with_bus(data: Path, catalog: Path) -> Iterator[Stack]:
    """A host of its own that speaks Service Bus too, without agents; ``connection_string`` opens its namespace."""
    environment = {
        "LIVOA_ENV": "local",
        "LIVOA_DATA": str(data),
        "LIVOA_CATALOG": str(catalog),
        "LIVOA_BUS_CONNECTION_FILE": str(data / "host" / "service-bus.connection"),
    }
    where = ["--port", "0", "--amqp-port", "0", "--data", str(data / "host")]
    with _started([sys.executable, "-m", "local_host", "--app", str(ROOT), *where, "--json"], data, environment) as (
        process,
        line,
    ):
        yield Stack(line["url"], data, process)


@contextmanager
def host_alone(data: Path, settings: dict[str, str]) -> Iterator[Stack]:
    """A host of its own with further settings and no agents but those that they name."""
    environment = {"LIVOA_ENV": "local", "LIVOA_DATA": str(data)} | settings
    where = ["--port", "0", "--data", str(data / "host"), "--json"]
    command = [sys.executable, "-m", "local_host", "--app", str(ROOT), *where]
    with _started(command, data, environment) as (process, line):
        yield Stack(line["url"], data, process)


@contextmanager
def _started(
    command: list[str], data: Path, settings: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LIVOA_", "OTEL_"))}
    logs = data / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "test.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment | settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
    try:
        yield process, _first_line(process, logs)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _first_line(process: subprocess.Popen[bytes], logs: Path) -> dict[str, Any]:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_S)
    line = process.stdout.readline() if ready else b""
    said = {path.name: path.read_text(errors="replace")[-2_000:] for path in logs.iterdir()}
    assert line, f"the stack did not come up: {said}"
    return dict(json.loads(line))
