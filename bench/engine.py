"""What a step costs: N no-op steps through the whole app on the embedded host, real HTTP in, real HTTP to an agent.

Shapes: ``fan`` (one source, N parallel steps, one sink), ``chain`` (N steps in a row, at most 100) and, with ``--layered``, the
layered graph of ``bench.peer_cases`` with so many steps. Prints one JSON object: makespan, CPU milliseconds of the host process
per step (engine, stores, audit, HTTP and all), steps per second, and ``two_tracks``: a run in which one slow step must not delay
an unrelated chain (ratio of its makespan to its critical path). ``load1`` is the load average when it began.

    .venv/bin/python bench/engine.py --steps 200
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import peer_cases  # noqa: E402 - found by the line above when this file is run by itself

CAPABILITY = """
name: bench.sleep
version: 1.0.0
title: Sleep
description: Answers after a while.
delivery: http
endpoint: bench
input_schema: {type: object, additionalProperties: false, properties: {ms: {type: integer}, after: {type: array}}}
parameters: {ms: control, after: payload}
output_schema: {type: object, properties: {ok: {type: boolean}}}
side_effect: none
idempotent: true
deterministic: true
"""
TENANT = """
tenant_id: bench
display_name: Bench
enabled_capabilities: [bench.sleep]
bounds: {max_steps: 5000, max_depth: 5000, max_parallel_steps: 64, max_fan_out: 10000}
"""


async def _execute(request: web.Request) -> web.Response:
    body = await request.json()
    await asyncio.sleep(body["inputs"].get("ms", 0) / 1000)
    return web.json_response({"status": "succeeded", "output": {"ok": True}})


def _step(
    step_id: str,
    needs: list[str] = [],  # noqa: B006 - never changed
    ms: int = 0,
    capability: str = "bench.sleep",
) -> dict[str, Any]:
    return {"id": step_id, "capability": capability, "inputs": {"ms": ms}, "needs": needs}


def fan(steps: int, capability: str = "bench.sleep") -> dict[str, Any]:
    """One source, ``steps`` in parallel, one sink."""
    middle = [_step(f"s{i}", ["source"], capability=capability) for i in range(steps)]
    return _plan([_step("source"), *middle, _step("sink", [s["id"] for s in middle])])


def chain(steps: int) -> dict[str, Any]:
    """``steps`` in a row."""
    return _plan([_step(f"s{i}", [f"s{i - 1}"] if i else []) for i in range(steps)])


def layered(steps: int) -> dict[str, Any]:
    """The layered graph of the side-by-side measurements."""
    return _plan([_step(step_id, needs) for step_id, needs in peer_cases.layered(steps).items()])


def two_tracks(slow_ms: int = 6000, links: int = 20, link_ms: int = 250) -> tuple[dict[str, Any], float]:
    """A slow step beside an unrelated chain, and the critical path in seconds."""
    track = [_step(f"s{i}", [f"s{i - 1}"] if i else [], link_ms) for i in range(links)]
    return _plan([_step("slow", ms=slow_ms), *track]), max(slow_ms, links * link_ms) / 1000


def _plan(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"goal": "bench", "steps": steps, "answer": {"uses": [steps[-1]["id"]]}}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Stack:
    """The embedded host with the app, a bench catalog, and an agent in this process. ``pages`` are put into the catalog,
    ``settings`` beside the host's, ``options`` behind its command."""

    pages: tuple[tuple[str, str], ...] = (("capabilities/bench.sleep", CAPABILITY), ("tenants/bench", TENANT))
    options: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, str] = {}
        self.environment: dict[str, str] = {}

    async def __aenter__(self) -> Stack:
        for name, text in self.pages:
            path = self.folder / "catalog" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        # The gate decides every step here too; without policies it refuses everything.
        for part in ("platform", "default"):
            policies = Path("catalog", "policies", part)
            shutil.copytree(ROOT / policies, self.folder / policies, ignore=shutil.ignore_patterns("golden"))
        app = web.Application()
        app.router.add_post("/execute", _execute)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.environment = os.environ | {
            "LIVOA_ENV": "local",
            "LIVOA_DATA": str(self.folder / "data"),
            "LIVOA_CATALOG": str(self.folder / "catalog"),
            "LIVOA_AGENT_ENDPOINTS": json.dumps({"bench": f"http://127.0.0.1:{port}"}),
            "LIVOA_LOG_LEVEL": "ERROR",
            **self.settings,
        }
        self._host = self._start_host(self.environment)
        assert self._host.stdout is not None
        self.url = json.loads(await asyncio.to_thread(self._host.stdout.readline))["url"]
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._token()}"})
        return self

    def _start_host(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "local_host",
                "--app",
                str(ROOT),
                "--port",
                "0",
                "--data",
                str(self.folder / "host"),
                "--json",
                *self.options,
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _token(self) -> str:
        from engine.adapters.memory import SystemClock
        from engine.domain.principal import Role
        from engine.identity import DevelopmentIssuer

        issuer = DevelopmentIssuer.open(self.folder / "data", SystemClock(), environment="local")
        return issuer.mint("bench", "bench", [Role.RUNS_SUBMIT, Role.RUNS_READ], audience="api://livoa")

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._host.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._host.wait, 20)
        await self._runner.cleanup()

    async def run(self, plan: dict[str, Any]) -> dict[str, float]:
        """Run a plan to its end; makespan from the first step's start to the last one's end, as recorded."""
        cpu = _cpu_s(self._host.pid)
        started = time.perf_counter()
        async with self._session.post(f"{self.url}/api/runs", json={"intent": "bench", "plan": plan}) as answer:
            body = await answer.json()
            assert answer.status == 202, body
        run_id = body["run_id"]
        while True:
            async with self._session.get(f"{self.url}/api/runs/{run_id}/status") as answer:
                if answer.status == 200:
                    status = (await answer.json())["customStatus"]["status"]
                    break
            await asyncio.sleep(0.1)
        wall_s = time.perf_counter() - started
        assert status == "succeeded", status
        async with self._session.get(f"{self.url}/api/runs/{run_id}/steps") as answer:
            steps = (await answer.json())["steps"]
        begin = min(datetime.fromisoformat(step["started_at"]) for step in steps)
        end = max(datetime.fromisoformat(step["finished_at"]) for step in steps)
        return {
            "steps": len(steps),
            "wall_s": round(wall_s, 3),
            "makespan_s": round((end - begin).total_seconds(), 3),
            "host_cpu_ms_per_step": round((_cpu_s(self._host.pid) - cpu) * 1000 / len(steps), 2),
            "steps_per_s": round(len(steps) / wall_s, 1),
        }


async def main(steps: int, layered_steps: int = 0) -> dict[str, Any]:
    """All shapes, one host; without ``layered_steps`` the layered graph is left out."""
    load1 = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder)) as stack:
            await stack.run(fan(2))
            plan, critical_s = two_tracks()
            tracks = await stack.run(plan)
            return {
                "at": datetime.now(UTC).isoformat(),
                "load1": load1,
                "fan": await stack.run(fan(steps)),
                "chain": await stack.run(chain(min(steps, 100))),
                **({"layered": await stack.run(layered(layered_steps))} if layered_steps else {}),
                "two_tracks": tracks
                | {"critical_path_s": critical_s, "ratio": round(tracks["makespan_s"] / critical_s, 3)},
            }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--layered", type=int, default=0, metavar="STEPS", help="also the layered graph, with so many steps"
    )
    options = parser.parse_args()
    print(json.dumps(asyncio.run(main(options.steps, options.layered))))
