"""The sample agents as ``./livoa up`` starts them: a process of their own, called over HTTP, held to their manifests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_kit import load_manifests
from engine.adapters.http_agents import HttpAgentInvoker
from engine.domain.execute import ExecuteFailed, ExecuteRequest, ExecuteResponse, ExecuteSucceeded
from engine.domain.grants import GRANT_KEYS_FILE
from engine.identity.development import DevelopmentIssuer
from engine.plan import validate_inputs, validate_output
from tests.contract.agents.harness import grants_in
from tests.support.shipped import CAPABILITIES

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = load_manifests(ROOT / "catalog" / "capabilities")
PERIOD = {"from": "2026-07-01", "to": "2026-09-30"}


def start(jwks: Path, data: Path, *more: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    command = [sys.executable, "-m", "sample_agents", "--data", str(data), "--jwks", str(jwks), "--json", *more]
    command += ["--grant-keys", str(jwks.parent / GRANT_KEYS_FILE)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the agents did not start: {process.wait(5)}"
    return process, json.loads(line)


@pytest.fixture(scope="module")
def agents(jwks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    process, line = start(jwks, tmp_path_factory.mktemp("agents"))
    yield line
    process.terminate()
    assert process.wait(20) == 0


class Caller:
    """Calls with a new key each time and holds inputs and output to the manifest."""

    def __init__(self, invoker: HttpAgentInvoker) -> None:
        self._invoker = invoker
        self._count = 0

    async def ask(self, name: str, inputs: dict[str, Any], tenant: str = "contoso") -> ExecuteResponse:
        self._count += 1
        step = f"{name}-{self._count}-{time.monotonic_ns()}"
        request = ExecuteRequest(
            tenant_id=tenant,
            run_id="run",
            step_id=step,
            attempt=1,
            capability=name,
            inputs=inputs,
            idempotency_key=f"run/{step}",
            deadline_at=datetime.now(UTC) + timedelta(seconds=60),
        )
        assert validate_inputs(MANIFESTS[name], inputs) == ()
        return await self._invoker.invoke(MANIFESTS[name], request)

    async def output(self, name: str, inputs: dict[str, Any], tenant: str = "contoso") -> dict[str, Any]:
        found = await self.ask(name, inputs, tenant)
        assert isinstance(found, ExecuteSucceeded), found
        assert validate_output(MANIFESTS[name], found.output) == ()
        assert found.usage.cost_micro_usd == MANIFESTS[name].cost.per_call_micro_usd
        output: dict[str, Any] = found.output
        return output

    async def code(self, name: str, inputs: dict[str, Any], tenant: str = "contoso") -> str:
        found = await self.ask(name, inputs, tenant)
        assert isinstance(found, ExecuteFailed), found
        return found.error.code


@pytest.fixture
async def caller(agents: dict[str, Any], issuer: DevelopmentIssuer, jwks: Path) -> AsyncIterator[Caller]:
    async def credential() -> str:
        return issuer.mint_for_agents()

    invoker = HttpAgentInvoker(agents["endpoints"], credential, grants_in(jwks.parent))
    yield Caller(invoker)
    await invoker.close()


async def test_one_process_serves_every_endpoint_that_the_shipped_manifests_name(agents: dict[str, Any]) -> None:
    assert set(agents["endpoints"]) == {MANIFESTS[name].endpoint for name in CAPABILITIES}
    assert agents["rates_url"] != agents["url"], "the rate service is somebody else's"


async def test_the_whole_story_from_query_to_findings(caller: Caller) -> None:
    spend = await caller.output("marketing.query_performance", {"from": "2023-10-01", "to": "2026-10-04"})
    compared = {"previous_from": "2026-04-01", "previous_to": "2026-06-30"}
    changes = await caller.output("marketing.compare_periods", PERIOD | compared)
    earlier = {"compare_from": "2026-04-01", "compare_to": "2026-06-30"}
    own = {name: spend[name] for name in ("rows", "sales", "currency")}
    mix = await caller.output("mmm.fit", PERIOD | earlier | own)
    budget = await caller.output("mmm.allocate_budget", {"model": mix["model"], "total_budget": 1_150_000})
    notes = await caller.output("rag.search", {"query": "paid search push: what happened and why"})
    uplift = {name: budget[name] for name in budget if name.startswith("expected_uplift")}
    found = await caller.output(
        "insights.summarise",
        {
            "currency": mix["currency"],
            "changes": changes["changes"],
            "channels": mix["channels"],
            "allocation": budget["allocation"],
            "passages": notes["passages"],
            "warnings": mix["warnings"],
            **uplift,
        },
    )
    texts = [one["text"] for one in found["insights"]]
    assert texts[0].startswith("The return of Paid search fell")
    assert any("Proposed split: less for Paid search" in text for text in texts)
    assert any("Post-mortem of the paid search push" in text for text in texts)
    assert sum(row["proposed_spend"] for row in budget["allocation"]) == pytest.approx(1_150_000)


async def test_the_fit_reads_the_tenants_own_data_when_no_rows_are_given(caller: Caller) -> None:
    contoso, fabrikam = [await caller.output("mmm.fit", {}, tenant) for tenant in ("contoso", "fabrikam")]
    assert (contoso["currency"], fabrikam["currency"]) == ("GBP", "EUR")
    assert contoso["from"] == "2026-07-06"
    assert len(contoso["channels"]) == 5
    assert len(fabrikam["channels"]) == 4


async def test_a_rate_comes_from_the_other_service(caller: Caller) -> None:
    inputs = {"base": "GBP", "quote": "EUR", "date": "2026-09-30", "amount": 100}
    found = await caller.output("rates.lookup", inputs)
    assert found["converted"] == pytest.approx(100 * found["rate"], abs=0.01)
    assert found["fixing_date"] == "2026-09-28"
    assert await caller.code("rates.lookup", inputs | {"date": "1999-01-01"}) == "rates.not_found"


async def test_tenants_do_not_see_each_others_briefs(caller: Caller) -> None:
    query = {"query": "media plan envelope budget", "top_k": 20}
    contoso = {one["document"] for one in (await caller.output("rag.search", query))["passages"]}
    fabrikam = {one["document"] for one in (await caller.output("rag.search", query, "fabrikam"))["passages"]}
    assert contoso
    assert fabrikam
    assert not contoso & fabrikam
    assert await caller.code("rag.search", query, "northwind") == "data.not_found"


async def test_what_cannot_be_answered_has_a_code(caller: Caller) -> None:
    late = {"from": "2030-01-01", "to": "2030-03-31"}
    assert await caller.code("marketing.query_performance", late) == "data.period_empty"
    assert (
        await caller.code("marketing.compare_periods", {"from": "2026-09-30", "to": "2026-07-01"})
        == "data.period_invalid"
    )
    assert await caller.code("mmm.fit", {"from": "2024-01-01", "to": "2024-03-31"}) == "mmm.too_few_weeks"


def test_a_restart_after_a_kill_keeps_what_was_done(jwks: Path, tmp_path: Path, issuer: DevelopmentIssuer) -> None:
    import asyncio

    async def ask(url: str) -> ExecuteResponse:
        async def credential() -> str:
            return issuer.mint_for_agents()

        invoker = HttpAgentInvoker({"rates": url}, credential, grants_in(jwks.parent))
        inputs = {"base": "GBP", "quote": "EUR", "date": "2026-09-30"}
        request = ExecuteRequest(
            tenant_id="contoso",
            run_id="run",
            step_id="rate",
            attempt=1,
            capability="rates.lookup",
            inputs=inputs,
            idempotency_key="run/rate",
            deadline_at=datetime.now(UTC) + timedelta(seconds=30),
        )
        try:
            return await invoker.invoke(MANIFESTS["rates.lookup"], request)
        finally:
            await invoker.close()

    first_process, first_line = start(jwks, tmp_path, "--no-warm-up")
    first = asyncio.run(ask(first_line["url"]))
    first_process.kill()
    first_process.wait(10)
    # No rate service listens there: only the stored answer can succeed.
    second_process, second_line = start(jwks, tmp_path, "--no-warm-up", "--rates-url", "http://127.0.0.1:9")
    second = asyncio.run(ask(second_line["url"]))
    second_process.terminate()
    assert second_process.wait(20) == 0
    assert isinstance(first, ExecuteSucceeded)
    assert second == first


def test_the_agents_leave_with_their_parent(jwks: Path, tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-m', 'sample_agents', *sys.argv[1:], '--parent-pid', str(os.getpid())]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)\n"
        "print(child.stdout.readline(), flush=True)\n"
        "os._exit(1)"
    )
    arguments = ["--data", str(tmp_path), "--jwks", str(jwks), "--json", "--no-warm-up"]
    arguments += ["--grant-keys", str(jwks.parent / GRANT_KEYS_FILE)]
    command = [sys.executable, "-c", script, *arguments]
    parent = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    pid = json.loads(parent.stdout)["pid"]
    give_up = time.monotonic() + 15
    while time.monotonic() < give_up and alive(pid):
        time.sleep(0.05)
    still = alive(pid)
    if still:
        os.kill(pid, signal.SIGKILL)
    assert not still


def alive(pid: int) -> bool:
    """Whether a process runs. One that nobody has waited for yet (a container without init) counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--data", "x"], ["--data", "x", "--jwks", "a", "--jwks-url", "b"], ["--data", "x", "--jwks", "a"]],
)
def test_without_keys_it_does_not_start(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "sample_agents", *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert "required" in found.stderr or "not allowed" in found.stderr


@pytest.mark.parametrize("capability", ["marketing.query_performance", "rag.search"])
async def test_the_sample_agents_keep_the_contract(agents: dict[str, Any], jwks: Path, capability: str) -> None:
    from agent_kit.conformance import Target, check_agent

    inputs = {"query": "paid search"} if capability == "rag.search" else PERIOD
    report = await check_agent(Target(agents["url"], jwks.parent, capability, inputs, tenant_id="contoso"))
    assert [one for one in report.results if one.status == "fail"] == []
    assert report.count("pass") >= 45
