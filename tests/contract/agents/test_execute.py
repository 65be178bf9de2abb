"""The agent contract over real HTTP: once is once, late is late, and nothing unchecked goes in or out."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError

from agent_kit import AgentLimits, IdempotencyStore
from engine.domain.execute import ExecuteFailed, ExecuteRequest, ExecuteResponse, ExecuteSucceeded
from engine.domain.grants import GRANT_HEADER, request_sha256
from engine.identity.development import DevelopmentIssuer
from tests.contract.agents.harness import Clock, Probes, Stand, request, stand


def code(response: ExecuteResponse) -> str:
    assert isinstance(response, ExecuteFailed), response
    return response.error.code


async def posted(found: Stand, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """A request as somebody would send it who does not use our client."""
    good = {
        "Authorization": f"Bearer {found.issuer.mint_for_agents()}",
        "Content-Type": "application/json",
        "Idempotency-Key": "r/s",
        GRANT_HEADER: await found.grants.mint(_granted(body)),
    }
    sent = good | {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{found.url}/execute", data=body, headers=sent) as response,
    ):
        if response.status != 200:
            assert response.content_type == "application/problem+json"
        return response.status, await response.json(content_type=None)


def _granted(body: bytes) -> ExecuteRequest:
    """What to ask a grant for: the request as it is sent, where it is one."""
    try:
        return ExecuteRequest.model_validate_json(body)
    except ValidationError:
        return request("probe.count")


async def test_delivered_twice_has_one_effect_and_one_answer(probe_stand: Stand) -> None:
    first = await probe_stand.call("probe.count")
    again = await probe_stand.call("probe.count", attempt=2)
    assert first == again
    assert isinstance(first, ExecuteSucceeded)
    assert probe_stand.probes.effects == 1


async def test_twenty_deliveries_at_once_have_one_effect(probe_stand: Stand) -> None:
    found = await asyncio.gather(*(probe_stand.call("probe.count") for _ in range(20)))
    assert probe_stand.probes.effects == 1
    assert {getattr(one, "output", None) and one.output["count"] for one in found} <= {1, None}
    assert any(isinstance(one, ExecuteSucceeded) for one in found)


async def test_the_same_key_for_another_request_is_refused(probe_stand: Stand) -> None:
    await probe_stand.call("probe.count", "a")
    other = await probe_stand.call("probe.count", "b")
    assert code(other) == "agent.contract_violation"
    assert "agent.key_reused" in other.error.message  # type: ignore[union-attr]  # failed, as just seen
    assert probe_stand.probes.effects == 1


async def test_two_tenants_may_use_the_same_key(probe_stand: Stand) -> None:
    await probe_stand.call("probe.count", "a")
    other = await probe_stand.call("probe.count", "b", tenant_id="fabrikam")
    assert isinstance(other, ExecuteSucceeded)
    assert probe_stand.probes.effects == 2


async def test_while_it_runs_a_second_delivery_is_told_so(probe_stand: Stand) -> None:
    first = asyncio.create_task(probe_stand.call("probe.hold"))
    await probe_stand.probes.started.wait()
    status, problem = await posted(probe_stand, request("probe.hold").model_dump_json().encode())
    assert (status, problem["code"], problem["retryable"]) == (409, "agent.in_flight", True)
    probe_stand.probes.go_on.set()
    assert isinstance(await first, ExecuteSucceeded)
    assert isinstance(await probe_stand.call("probe.hold"), ExecuteSucceeded)
    assert probe_stand.probes.effects == 1


async def test_a_failure_is_not_kept_so_the_retry_runs(probe_stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    probe_stand.probes.fail_times = 1
    with caplog.at_level(logging.DEBUG):
        first = await probe_stand.call("probe.crash_again", "the note")
    assert code(first) == "agent.internal"
    assert "secret" not in caplog.text + str(first)
    assert any(record.error_place.startswith("crash:") for record in caplog.records if hasattr(record, "error_place"))
    assert isinstance(await probe_stand.call("probe.crash_again", "the note"), ExecuteSucceeded)
    assert probe_stand.probes.effects == 1


async def test_what_a_capability_says_reaches_the_caller(probe_stand: Stand) -> None:
    found = await probe_stand.call("probe.refuse")
    assert isinstance(found, ExecuteFailed)
    assert (found.error.code, found.error.retryable, found.error.retry_after_s) == ("probe.not_today", True, 7)


async def test_a_process_that_died_blocks_its_key_only_until_the_lease_ends(
    issuer: DevelopmentIssuer, jwks: Path, tmp_path: Path
) -> None:
    clock = Clock()
    path = tmp_path / "executions.db"
    dead, living = IdempotencyStore(path, now=clock.now), IdempotencyStore(path, now=clock.now)
    async with stand(issuer, jwks, store=living) as found:
        dead.claim("contoso", "r/s", request_sha256("probe.count", {"note": "a"}), 15.0)
        status, problem = await posted(found, request("probe.count").model_dump_json().encode())
        assert (status, problem["code"]) == (409, "agent.in_flight")
        clock.at += timedelta(seconds=16)
        assert isinstance(await found.call("probe.count"), ExecuteSucceeded)
        assert found.probes.effects == 1


async def test_a_restart_keeps_successes(issuer: DevelopmentIssuer, jwks: Path, tmp_path: Path) -> None:
    for _ in range(2):
        async with stand(issuer, jwks, store=IdempotencyStore(tmp_path / "executions.db"), probes=Probes()) as found:
            again = await found.call("probe.count")
            assert isinstance(again, ExecuteSucceeded)
            last = found.probes.effects
    assert last == 0


async def test_the_deadline_ends_an_execution_that_is_safe_to_repeat_and_frees_its_key(probe_stand: Stand) -> None:
    first = await probe_stand.call("probe.brief_again")
    assert code(first) == "agent.timeout"
    probe_stand.probes.go_on.set()
    assert isinstance(await probe_stand.call("probe.brief_again"), ExecuteSucceeded)


async def test_a_call_whose_deadline_has_passed_is_not_begun(probe_stand: Stand) -> None:
    late = request("probe.count").model_copy(update={"deadline_at": Clock().at - timedelta(seconds=1)})
    status, problem = await posted(probe_stand, late.model_dump_json().encode())
    assert (status, problem["code"], problem["retryable"]) == (408, "agent.deadline", True)
    assert probe_stand.probes.effects == 0


async def test_work_that_cannot_be_stopped_serves_the_retry(issuer: DevelopmentIssuer, jwks: Path) -> None:
    gate = threading.Event()
    probes = Probes(block=lambda: gate.wait(10) and None)
    async with stand(issuer, jwks, probes=probes) as found:
        soon = request("probe.compute").model_copy(update={"deadline_at": Clock().at + timedelta(seconds=0.4)})
        status, problem = await posted(found, soon.model_dump_json().encode())
        assert (status, problem["code"]) == (408, "agent.deadline")
        status, problem = await posted(found, request("probe.compute").model_dump_json().encode())
        assert (status, problem["code"]) == (409, "agent.in_flight")
        retry = asyncio.create_task(found.call("probe.compute"))  # waits for the call that is in flight
        gate.set()
        answer = await retry
        assert isinstance(answer, ExecuteSucceeded)
        assert (answer.output, probes.effects) == ({"count": 1}, 1)


async def test_cpu_bound_work_does_not_hold_up_the_agent(issuer: DevelopmentIssuer, jwks: Path) -> None:
    gate = threading.Event()
    async with stand(issuer, jwks, probes=Probes(block=lambda: gate.wait(10) and None)) as found:
        busy = asyncio.create_task(found.call("probe.compute", key="r/busy"))
        await found.probes.started.wait()
        assert isinstance(await found.call("probe.count", key="r/other"), ExecuteSucceeded)
        gate.set()
        assert isinstance(await busy, ExecuteSucceeded)


async def test_without_a_free_slot_the_caller_is_asked_to_come_back(issuer: DevelopmentIssuer, jwks: Path) -> None:
    async with stand(issuer, jwks, limits=AgentLimits(slots=1, drain_s=2)) as found:
        done = await found.call("probe.count", key="r/done")
        held = asyncio.create_task(found.call("probe.hold", key="r/1"))
        await found.probes.started.wait()
        second = await found.call("probe.count", key="r/2")
        assert isinstance(second, ExecuteFailed)
        assert (second.error.code, second.error.retryable, second.error.retry_after_s) == ("agent.busy", True, 1)
        assert await found.call("probe.count", key="r/done") == done, "a stored answer needs no slot"
        found.probes.go_on.set()
        await held
        assert isinstance(await found.call("probe.count", key="r/2"), ExecuteSucceeded), "the refusal kept no claim"


@pytest.mark.parametrize(
    "output",
    [
        {"count": 0},
        {"count": "1"},
        {"count": 1, "more": 2},
        {},
        None,
        [1],
        {"count": float("nan")},
        pytest.param({"count": object()}, id="no-json"),
        {1: 2},
    ],
    ids=str,
)
async def test_an_output_that_breaks_its_schema_goes_nowhere(probe_stand: Stand, output: Any) -> None:
    probe_stand.probes.output = output
    assert code(await probe_stand.call("probe.output_again")) == "agent.contract_violation"
    probe_stand.probes.output = {"count": 3}
    assert isinstance(await probe_stand.call("probe.output_again"), ExecuteSucceeded), "and it was not kept"


async def test_an_output_over_a_mebibyte_goes_nowhere(probe_stand: Stand) -> None:
    probe_stand.probes.output = {"count": 1, "padding": "x" * 2**20}
    assert code(await probe_stand.call("probe.output")) == "agent.contract_violation"


def body(**changes: Any) -> bytes:
    held = json.loads(request("probe.count").model_dump_json())
    return json.dumps({**held, **changes}).encode()


@pytest.mark.parametrize(
    ("sent", "status", "expected"),
    [
        (b"", 400, "json.syntax"),
        (b"{", 400, "json.syntax"),
        (b'{"a": 1, "a": 2}', 400, "json.duplicate_key"),
        (b'{"a": NaN}', 400, "json.not_a_number"),
        (b"[" * 100 + b"]" * 100, 400, "json.too_deep"),
        (b"[" * 100_000, 400, "json.too_deep"),
        (b'"\xff"', 400, "json.encoding"),
        (b"{}", 422, "agent.request_invalid"),
        (b"[]", 422, "agent.request_invalid"),
        (body(surprise=1), 422, "agent.request_invalid"),
        (body(tenant_id="../x"), 422, "agent.request_invalid"),
        (body(attempt=0), 422, "agent.request_invalid"),
        (body(deadline_at="2026-11-22T10:00:00"), 422, "agent.request_invalid"),
        (body(capability="probe.unheard_of"), 404, "agent.unknown_capability"),
        (body(inputs={}), 422, "agent.inputs_invalid"),
        (body(inputs={"note": 1}), 422, "agent.inputs_invalid"),
        (body(inputs={"note": "a", "more": 1}), 422, "agent.inputs_invalid"),
        (body(idempotency_key="r/other"), 422, "agent.key_mismatch"),
        (body(inputs={"note": "x" * 270_000}), 413, "agent.too_large"),
    ],
)
async def test_bad_requests_are_refused_with_a_code_and_no_effect(
    probe_stand: Stand, sent: bytes, status: int, expected: str
) -> None:
    found, problem = await posted(probe_stand, sent)
    assert (found, problem["code"], problem["status"]) == (status, expected, status)
    assert probe_stand.probes.effects == 0


async def test_the_place_of_a_wrong_input_is_named_and_its_value_is_not(probe_stand: Stand) -> None:
    _, problem = await posted(probe_stand, body(inputs={"note": 4711}))
    assert problem["violations"][0]["pointer"] == "/note"
    assert "4711" not in json.dumps(problem)


@pytest.mark.parametrize(
    "headers", [{"Content_Type": "text/plain"}, {"Content_Encoding": "gzip"}, {"Content_Type": "multipart/form-data"}]
)
async def test_other_media_types_are_refused(probe_stand: Stand, headers: dict[str, str]) -> None:
    status, problem = await posted(probe_stand, body(), **headers)
    assert (status, problem["code"]) == (415, "agent.media_type")


async def test_traceparent_reaches_the_log_unless_it_is_forged(
    probe_stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with caplog.at_level(logging.INFO, logger="agent_kit"):
        await probe_stand.invoker.invoke(
            probe_stand.probes.agent().capabilities["probe.count"].manifest, request("probe.count"), traceparent=good
        )
        await posted(probe_stand, body(), traceparent="00-<script>-b7ad6b7169203331-01")
    seen = [getattr(record, "traceparent", None) for record in caplog.records if record.message == "execute"]
    assert seen == [good, None]


async def test_capabilities_are_listed_for_callers_and_health_for_everybody(probe_stand: Stand) -> None:
    token = {"Authorization": f"Bearer {probe_stand.issuer.mint_for_agents()}"}
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{probe_stand.url}/capabilities", headers=token) as response:
            pages = (await response.json())["capabilities"]
        assert {page["name"] for page in pages} == set(probe_stand.probes.agent().capabilities)
        for path, expected in (("/capabilities", 401), ("/health/live", 200), ("/health/ready", 200), ("/docs", 404)):
            async with session.get(probe_stand.url + path) as response:
                assert response.status == expected, path


async def test_an_agent_that_shuts_down_takes_no_new_work(
    probe_stand: Stand, issuer: DevelopmentIssuer, jwks: Path
) -> None:
    from tests.contract.agents.harness import probe_app, served

    app = probe_app(Probes(), jwks)
    async with served(app) as url, aiohttp.ClientSession() as session:
        app.state.drain()
        status, problem = await posted(
            Stand(url, Probes(), probe_stand.store, issuer, probe_stand.invoker, probe_stand.grants), body()
        )
        assert (status, problem["code"], problem["retryable"]) == (503, "agent.draining", True)
        async with session.get(f"{url}/health/ready") as response:
            assert response.status == 503
        async with session.get(f"{url}/health/live") as response:
            assert response.status == 200


async def test_work_under_way_is_finished_before_the_agent_leaves(probe_stand: Stand, jwks: Path) -> None:
    from tests.contract.agents.harness import probe_app, served

    probes = Probes()
    app = probe_app(probes, jwks)
    async with served(app) as url:
        leaving = Stand(url, probes, probe_stand.store, probe_stand.issuer, probe_stand.invoker, probe_stand.grants)
        held = asyncio.create_task(posted(leaving, request("probe.hold").model_dump_json().encode()))
        await probes.started.wait()
        asyncio.get_running_loop().call_later(0.2, probes.go_on.set)
    status, answer = await held
    assert (status, answer["output"]) == (200, {"count": 1})
