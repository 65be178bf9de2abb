"""Executions of the kit that outlive a request: asked for, listened to, taken up again, stopped, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent_kit import AgentLimits, IdempotencyStore
from agent_kit.execution import Executions
from engine.adapters.http_agents import HttpAgentInvoker
from engine.adapters.http_agents.call import Pauses
from engine.domain.execute import ExecuteFailed, ExecuteProgress, ExecuteSucceeded, execution_id
from engine.domain.grants import GRANT_HEADER
from engine.identity.development import DevelopmentIssuer
from tests.contract.agents.harness import MANIFESTS, Probes, Stand, request, stand

ID = execution_id("contoso", "r/s")
ASYNC = {"Prefer": "respond-async, wait=0"}


async def asked(
    found: Stand, method: str, path: str, *, grant_of: dict[str, Any] | None = None, body: bytes = b"", **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, document and headers of a request with a good token and a grant for ``request("probe.hold")``, or another."""
    granted = request(**({"capability": "probe.hold"} | (grant_of or {})))
    sent = {
        "Authorization": f"Bearer {found.issuer.mint_for_agents()}",
        GRANT_HEADER: await found.grants.mint(granted),
        "Content-Type": "application/json",
        "Idempotency-Key": granted.idempotency_key,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, found.url + path, data=body, headers=sent | headers) as response,
    ):
        return response.status, await response.json(content_type=None), dict(response.headers)


async def accepted(found: Stand, of: str = "probe.hold") -> dict[str, Any]:
    body = request(of).model_dump_json().encode()
    status, document, headers = await asked(found, "POST", "/execute", grant_of={"capability": of}, body=body, **ASYNC)
    assert (status, headers["Location"], headers["Retry-After"]) == (202, f"/executions/{ID}", "1")
    await found.probes.started.wait()
    return dict(document)


@asynccontextmanager
async def impatient(found: Stand) -> AsyncIterator[HttpAgentInvoker]:
    """The caller's side, which wants to be told to come back at once."""

    async def credential() -> str:
        return found.issuer.mint_for_agents()

    pauses = Pauses(in_flight_s=0.02, poll_s=0.02, max_poll_s=0.05, wait_s=0)
    invoker = HttpAgentInvoker({"probes": found.url}, credential, found.grants, pauses=pauses)
    yield invoker
    await invoker.close()


async def test_an_accepted_execution_is_found_by_its_id_until_it_has_ended(probe_stand: Stand) -> None:
    assert await accepted(probe_stand) == {"status": "running", "execution_id": ID, "progress": None}
    probe_stand.probes.context.progress(0.25, "a quarter")
    status, document, headers = await asked(probe_stand, "GET", f"/executions/{ID}")
    assert (status, document["progress"]) == (200, {"fraction": 0.25, "message": "a quarter"})
    assert headers["Content-Type"] == "application/json"
    probe_stand.probes.go_on.set()
    async with impatient(probe_stand) as invoker:
        found = await invoker.invoke(MANIFESTS["probe.hold"], request("probe.hold"))
    assert isinstance(found, ExecuteSucceeded)
    _, document, _ = await asked(probe_stand, "GET", f"/executions/{ID}")
    assert document["output"] == {"count": 1}
    assert probe_stand.probes.effects == 1


async def test_our_caller_and_the_kit_agree_on_long_work(probe_stand: Stand) -> None:
    told: list[float | None] = []

    async def sink(progress: ExecuteProgress) -> None:
        told.append(progress.fraction)
        probe_stand.probes.go_on.set()

    async with impatient(probe_stand) as invoker:
        call = asyncio.create_task(invoker.invoke(MANIFESTS["probe.hold"], request("probe.hold"), progress=sink))
        await probe_stand.probes.started.wait()
        probe_stand.probes.context.progress(0.5)
        assert isinstance(await call, ExecuteSucceeded)
    assert told[0] == 0.5
    assert probe_stand.probes.effects == 1


async def test_a_caller_that_went_away_is_joined_to_its_execution(probe_stand: Stand) -> None:
    """A worker is killed while the agent works: the next delivery gets the same execution's result."""
    async with impatient(probe_stand) as invoker:
        first = asyncio.create_task(invoker.invoke(MANIFESTS["probe.hold"], request("probe.hold")))
        await probe_stand.probes.started.wait()
        first.cancel("livoa.leave-running")
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(invoker.invoke(MANIFESTS["probe.hold"], request("probe.hold", attempt=2)))
        asyncio.get_running_loop().call_later(0.2, probe_stand.probes.go_on.set)
        assert isinstance(await second, ExecuteSucceeded)
    assert probe_stand.probes.effects == 1


async def test_a_stream_tells_progress_and_ends_with_the_result(probe_stand: Stand) -> None:
    told: list[float | None] = []

    async def sink(progress: ExecuteProgress) -> None:
        told.append(progress.fraction)

    call = asyncio.create_task(
        probe_stand.invoker.invoke(MANIFESTS["probe.stream"], request("probe.stream"), progress=sink)
    )
    await probe_stand.probes.started.wait()
    for fraction in (0.1, 0.7):
        probe_stand.probes.context.progress(fraction)
        while fraction not in told:  # noqa: ASYNC110 - the sink is called, nothing to wait on
            await asyncio.sleep(0.01)
    probe_stand.probes.go_on.set()
    assert isinstance(await call, ExecuteSucceeded)


async def test_a_capability_that_works_in_small_steps_does_not_flood_its_caller(probe_stand: Stand) -> None:
    granted = request("probe.stream")
    sent = {
        "Authorization": f"Bearer {probe_stand.issuer.mint_for_agents()}",
        GRANT_HEADER: await probe_stand.grants.mint(granted),
        "Content-Type": "application/json",
        "Accept": "application/x-ndjson",
        "Idempotency-Key": granted.idempotency_key,
    }
    body = granted.model_dump_json()
    async with (
        aiohttp.ClientSession() as session,
        session.post(probe_stand.url + "/execute", data=body, headers=sent) as response,
    ):
        await probe_stand.probes.started.wait()
        for step in range(500):
            probe_stand.probes.context.progress(step / 500)
            await asyncio.sleep(0.001)
        probe_stand.probes.go_on.set()
        lines = [json.loads(line) async for line in response.content]
    assert len(lines) < 100
    assert lines[-1]["status"] == "succeeded"


async def test_who_does_not_ask_for_a_stream_gets_one_document(probe_stand: Stand) -> None:
    probe_stand.probes.go_on.set()
    body = request("probe.stream").model_dump_json().encode()
    status, document, headers = await asked(
        probe_stand, "POST", "/execute", grant_of={"capability": "probe.stream"}, body=body
    )
    assert (status, document["output"], headers["Content-Type"]) == (200, {"count": 1}, "application/json")


async def test_a_stream_whose_listener_left_goes_on(probe_stand: Stand) -> None:
    call = asyncio.create_task(probe_stand.invoker.invoke(MANIFESTS["probe.stream"], request("probe.stream")))
    await probe_stand.probes.started.wait()
    call.cancel("livoa.leave-running")
    with pytest.raises(asyncio.CancelledError):
        await call
    probe_stand.probes.go_on.set()
    await probe_stand.probes.had_effect.wait()
    assert isinstance(await probe_stand.call("probe.stream", attempt=2), ExecuteSucceeded)
    assert probe_stand.probes.effects == 1


async def test_a_cancelled_execution_stops_and_its_key_is_used_up_because_its_effect_may_have_happened(
    probe_stand: Stand,
) -> None:
    await accepted(probe_stand)
    await probe_stand.probes.started.wait()
    status, document, _ = await asked(probe_stand, "DELETE", f"/executions/{ID}")
    assert (status, document["error"]["code"], document["error"]["retryable"]) == (200, "agent.cancelled", False)
    _, again, _ = await asked(probe_stand, "DELETE", f"/executions/{ID}")
    assert again == document, "asking twice is asking once"
    assert probe_stand.probes.effects == 0
    probe_stand.probes.go_on.set()
    for attempt in (1, 2):
        answer = await probe_stand.call("probe.hold", attempt=attempt)
        assert isinstance(answer, ExecuteFailed)
        assert (answer.error.code, answer.error.retryable) == ("agent.cancelled", False)
    assert probe_stand.probes.effects == 0


async def test_a_call_that_was_cancelled_before_its_function_began_leaves_the_key_free(
    probe_stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Executions._start

    def stopped_at_once(*arguments: Any) -> Any:
        running = begin(*arguments)
        asyncio.get_running_loop().call_soon(running.stop, "cancelled")
        return running

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Executions, "_start", stopped_at_once)
    monkeypatch.setattr("agent_kit.execution.perform", never)
    first = await probe_stand.call("probe.hold")
    assert isinstance(first, ExecuteFailed)
    assert (first.error.code, probe_stand.probes.started.is_set()) == ("agent.cancelled", False)
    monkeypatch.undo()
    probe_stand.probes.go_on.set()
    assert isinstance(await probe_stand.call("probe.hold", attempt=2), ExecuteSucceeded)
    assert probe_stand.probes.effects == 1


async def test_who_was_replaced_cannot_stop_what_a_later_attempt_waits_for(probe_stand: Stand) -> None:
    """A worker that stood still for longer than its lease wakes up, learns that it lost the step, and cancels its call."""
    await accepted(probe_stand)
    later = request("probe.hold", attempt=2)
    status, problem, _ = await asked(
        probe_stand, "POST", "/execute", grant_of={"attempt": 2}, body=later.model_dump_json().encode(), **ASYNC
    )
    assert (status, problem["code"]) == (409, "agent.in_flight")
    _, document, _ = await asked(probe_stand, "DELETE", f"/executions/{ID}")
    assert document["status"] == "running"
    _, document, _ = await asked(probe_stand, "DELETE", f"/executions/{ID}", grant_of={"attempt": 2})
    assert document["error"]["code"] == "agent.cancelled"
    assert probe_stand.probes.effects == 0


async def test_an_execution_whose_lease_ran_out_while_its_process_stood_still_is_not_begun_twice(
    issuer: DevelopmentIssuer, jwks: Path
) -> None:
    ahead = timedelta()
    store = IdempotencyStore(None, now=lambda: datetime.now(UTC) + ahead)
    async with stand(issuer, jwks, store=store) as found:
        await accepted(found)
        ahead = timedelta(seconds=60)
        body = request("probe.hold").model_dump_json().encode()
        status, problem, _ = await asked(found, "POST", "/execute", body=body, **ASYNC)
        assert (status, problem["code"]) == (409, "agent.in_flight")
        found.probes.go_on.set()
        assert isinstance(await found.call("probe.hold"), ExecuteSucceeded)
        assert found.probes.effects == 1


async def test_our_caller_stops_what_it_began(probe_stand: Stand) -> None:
    async with impatient(probe_stand) as invoker:
        call = asyncio.create_task(invoker.invoke(MANIFESTS["probe.hold"], request("probe.hold")))
        await probe_stand.probes.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    _, document, _ = await asked(probe_stand, "GET", f"/executions/{ID}")
    assert document["error"]["code"] == "agent.cancelled"


async def test_what_has_succeeded_cannot_be_stopped(probe_stand: Stand) -> None:
    probe_stand.probes.go_on.set()
    await probe_stand.call("probe.hold")
    status, document, _ = await asked(probe_stand, "DELETE", f"/executions/{ID}")
    assert (status, document["status"]) == (200, "succeeded")


async def test_work_in_a_thread_ends_when_it_looks_and_its_result_is_not_used(
    issuer: DevelopmentIssuer, jwks: Path
) -> None:
    gate = threading.Event()
    async with stand(issuer, jwks, probes=Probes(block=lambda: gate.wait(10) and None)) as found:
        body = request("probe.compute").model_dump_json().encode()
        grant_of = {"capability": "probe.compute"}
        await asked(found, "POST", "/execute", grant_of=grant_of, body=body, **ASYNC)
        await found.probes.started.wait()
        _, document, _ = await asked(found, "DELETE", f"/executions/{ID}", grant_of=grant_of)
        assert document["status"] == "running", "a thread cannot be stopped from outside"
        assert found.probes.context.cancelled
        gate.set()
        async with asyncio.timeout(60):
            while document["status"] == "running":
                _, document, _ = await asked(found, "GET", f"/executions/{ID}", grant_of=grant_of)
        assert (document["error"]["code"], found.probes.effects) == ("agent.cancelled", 0)


async def test_an_execution_is_over_at_its_deadline_though_nobody_waits(probe_stand: Stand) -> None:
    of = {"capability": "probe.hold_again"}
    soon = request("probe.hold_again", deadline_at=datetime.now(UTC) + timedelta(seconds=2))
    await asked(probe_stand, "POST", "/execute", grant_of=of, body=soon.model_dump_json().encode(), **ASYNC)
    document: dict[str, Any] = {"status": "running"}
    async with asyncio.timeout(60):
        while document["status"] == "running":
            _, document, _ = await asked(probe_stand, "GET", f"/executions/{ID}", grant_of=of)
    assert (document["error"]["code"], document["error"]["retryable"]) == ("agent.deadline", True)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "other",
    [
        {"tenant_id": "fabrikam"},
        {"idempotency_key": "another/s", "run_id": "another"},
        {"inputs": {"note": "b"}},
        {"capability": "probe.count"},
    ],
    ids=["tenant", "run", "inputs", "action"],
)
async def test_nobody_asks_for_or_stops_the_execution_of_another_call(
    probe_stand: Stand, method: str, other: dict[str, Any]
) -> None:
    await accepted(probe_stand)
    status, problem, _ = await asked(probe_stand, method, f"/executions/{ID}", grant_of=other)
    assert (status, problem["code"]) == (403, "grant.mismatch")
    probe_stand.probes.go_on.set()
    assert isinstance(await probe_stand.call("probe.hold"), ExecuteSucceeded)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_without_papers_nothing_is_told_of_an_execution(probe_stand: Stand, method: str) -> None:
    await accepted(probe_stand)
    url, token = f"{probe_stand.url}/executions/{ID}", f"Bearer {probe_stand.issuer.mint_for_agents()}"
    async with aiohttp.ClientSession() as session:
        for headers, status, code in (
            ({}, 401, "auth.token_missing"),
            ({"Authorization": token}, 403, "grant.missing"),
        ):
            async with session.request(method, url, headers=headers) as response:
                assert (response.status, (await response.json(content_type=None))["code"]) == (status, code)
    probe_stand.probes.go_on.set()


async def test_an_execution_that_never_was_is_unknown(probe_stand: Stand) -> None:
    status, problem, _ = await asked(probe_stand, "GET", f"/executions/{ID}")
    assert (status, problem["code"]) == (404, "agent.no_execution")


async def test_an_agent_that_leaves_interrupts_long_work_that_is_safe_to_repeat_and_says_so(
    issuer: DevelopmentIssuer, jwks: Path, tmp_path: Path
) -> None:
    path, of = tmp_path / "executions.db", "probe.hold_again"
    async with stand(issuer, jwks, store=IdempotencyStore(path), limits=AgentLimits(drain_s=0.1)) as found:
        await accepted(found, of)
    async with stand(issuer, jwks, store=IdempotencyStore(path)) as found:
        _, document, _ = await asked(found, "GET", f"/executions/{ID}", grant_of={"capability": of})
        assert (document["error"]["code"], document["error"]["retryable"]) == ("agent.interrupted", True)
        found.probes.go_on.set()
        assert isinstance(await found.call(of), ExecuteSucceeded)


async def test_a_failure_is_told_to_who_comes_back_and_not_to_who_tries_again(probe_stand: Stand) -> None:
    probe_stand.probes.fail_times = 1
    first = await probe_stand.call("probe.crash_again")
    assert isinstance(first, ExecuteFailed)
    _, document, _ = await asked(probe_stand, "GET", f"/executions/{ID}", grant_of={"capability": "probe.crash_again"})
    assert document["error"]["code"] == "agent.internal"
    assert isinstance(await probe_stand.call("probe.crash_again"), ExecuteSucceeded)


@pytest.mark.parametrize(
    ("wishes", "status"),
    [("respond-async", 202), ("wait=0", 200), ("respond-async, wait=50", 200), ("wait=0, Respond-Async", 202)],
)
async def test_only_who_says_so_is_told_to_come_back(probe_stand: Stand, wishes: str, status: int) -> None:
    body = request("probe.hold").model_dump_json().encode()
    answering = asyncio.create_task(asked(probe_stand, "POST", "/execute", body=body, Prefer=wishes))
    await probe_stand.probes.started.wait()
    if status == 200:
        probe_stand.probes.go_on.set()
    found, document, _ = await answering
    assert found == status, json.dumps(document)
    probe_stand.probes.go_on.set()
    await probe_stand.probes.had_effect.wait()


async def test_a_capability_gets_the_callers_trace_to_hand_on(probe_stand: Stand) -> None:
    probe_stand.probes.go_on.set()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await probe_stand.invoker.invoke(MANIFESTS["probe.hold"], request("probe.hold"), traceparent=trace)
    own = probe_stand.probes.context.traceparent
    assert own is not None
    assert own.split("-")[1] == trace.split("-")[1]
    assert own.split("-")[2] != trace.split("-")[2]
