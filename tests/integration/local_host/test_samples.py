"""The documented Durable Functions patterns, as apps of our own, each driven over real HTTP."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from local_host.durable.clock import VirtualClock
from local_host.host import EmbeddedHost, HostOptions

from .conftest import APPS

START_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNNING = {"Pending", "Running", "Suspended", "ContinuedAsNew"}


async def _post(http, url, body=None):
    async with http.post(url, json=body) as response:
        return response.status, response.headers.copy(), json.loads(await response.text() or "null")


async def _start(http, url, body=None) -> dict:
    """Start through the app's own HTTP function; the answer must be the check-status shape."""
    status, headers, links = await _post(http, url, body)
    assert status == 202, links
    assert headers["Location"] == links["statusQueryGetUri"]
    assert headers["Retry-After"] == "10"
    assert {"id", "sendEventPostUri", "terminatePostUri", "purgeHistoryDeleteUri"} <= set(links)
    return links


async def _status_when(http, links, wanted=lambda status: status["runtimeStatus"] not in RUNNING) -> dict:
    """Poll the public status address until `wanted(status)`."""
    status = {}
    for _ in range(1000):
        async with http.get(links["statusQueryGetUri"]) as response:
            assert response.status in {200, 202}, await response.text()
            status = await response.json()
            assert (response.status == 200) == (status["runtimeStatus"] not in RUNNING)
        if wanted(status):
            return status
        await asyncio.sleep(0.01)
    raise AssertionError(status)


async def _output(http, links):
    status = await _status_when(http, links)
    assert status["runtimeStatus"] == "Completed", status
    return status["output"]


# -- chaining


async def test_chaining_passes_results_on_and_shows_progress(start_host, http):
    host = await start_host("chaining")
    links = await _start(http, f"{host.url}/api/orchestrators/greet_cities")
    status = await _status_when(http, links)
    assert status["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
    assert (status["customStatus"], status["name"]) == ("greeted London", "greet_cities")
    links = await _start(http, f"{host.url}/api/orchestrators/GREET_CITIES", ["Lima"])
    assert await _output(http, links) == ["Hello Lima!"]


async def test_activities_resolve_by_any_name_and_children_return(start_host, http):
    host = await start_host("chaining")
    links = await _start(http, f"{host.url}/api/orchestrators/pipeline", {"value": 7})
    assert await _output(http, links) == {"value": 42, "child": True, "typed": "Hello None!"}


async def test_an_activity_failure_reaches_user_code_and_ends_the_instance(start_host, http):
    host = await start_host("chaining")
    links = await _start(http, f"{host.url}/api/orchestrators/fails")
    status = await _status_when(http, links)
    assert status["runtimeStatus"] == "Failed"
    assert status["customStatus"].startswith("Activity function 'raise_error' failed:  ValueError: refused first")
    assert status["output"].startswith("Orchestrator function 'fails' failed: ")
    assert "refused second" in status["output"]


async def test_retries_run_until_success(start_host, http):
    host = await start_host("chaining")
    assert await _output(http, await _start(http, f"{host.url}/api/orchestrators/retries")) == 3


async def test_an_unknown_orchestrator_is_the_starters_error(start_host, http):
    host = await start_host("chaining")
    async with http.post(f"{host.url}/api/orchestrators/nobody") as response:
        assert (response.status, await response.read()) == (500, b"")


# -- fan-out/fan-in


async def test_fan_out_runs_side_by_side_and_keeps_order(start_host, http):
    host = await start_host("fan_out_fan_in")
    output = await _output(http, await _start(http, f"{host.url}/api/sum/12"))
    assert output["squares"] == [n * n for n in range(12)]
    assert output["sum"] == 506
    assert output["most_at_once"] > 1


# -- blueprints


async def test_blueprints_and_custom_objects(start_host, http):
    host = await start_host("blueprints")
    assert await _output(http, await _start(http, f"{host.url}/api/order/tea")) == "2 x tea (Order)"
    async with http.get(f"{host.url}/api/version") as response:
        assert await response.text() == "1"


# -- human interaction


async def test_an_answer_in_time_wins_over_the_timer(start_host, http):
    clock = VirtualClock(START_AT)
    host = await start_host("human_interaction", HostOptions(clock=clock, drain_s=2.0))
    links = await _start(http, f"{host.url}/api/requests/r1")
    await _status_when(http, links, lambda status: status["customStatus"] == "waiting")
    assert (await _post(http, f"{host.url}/api/requests/r1/answer", {"ok": True}))[0] == 202
    output = await _output(http, links)
    assert json.loads(output["answer"]) == {"ok": True}  # the SDK's client sends JSON text as a string
    assert output["charged"] == 10


async def test_a_raw_event_through_the_public_webhook_arrives_as_json(start_host, http):
    host = await start_host("human_interaction")
    links = await _start(http, f"{host.url}/api/requests/r2")
    await _status_when(http, links, lambda status: status["customStatus"] == "waiting")
    address = links["sendEventPostUri"].replace("{eventName}", "Answer")
    async with http.post(address.split("code=")[0] + "code=wrong", json=1) as response:
        assert response.status == 401
    async with http.post(address, json={"ok": True}) as response:
        assert response.status == 202
    assert (await _output(http, links))["answer"] == {"ok": True}


async def test_three_days_of_silence_escalate(start_host, http):
    clock = VirtualClock(START_AT)
    host = await start_host("human_interaction", HostOptions(clock=clock, drain_s=2.0))
    links = await _start(http, f"{host.url}/api/requests/r3")
    await _status_when(http, links, lambda status: status["customStatus"] == "waiting")
    clock.advance_to(START_AT + timedelta(days=2, hours=23))
    async with http.get(links["statusQueryGetUri"]) as response:
        assert (await response.json())["runtimeStatus"] == "Running"
    clock.advance_to(START_AT + timedelta(days=3, minutes=1))
    assert await _output(http, links) == {"escalated": "manager of r3"}


async def test_a_waiting_instance_survives_a_restart_of_the_host(tmp_path, http):
    async with EmbeddedHost(APPS / "human_interaction", tmp_path, HostOptions(drain_s=2.0)) as host:
        links = await _start(http, f"{host.url}/api/requests/r4")
        await _status_when(http, links, lambda status: status["customStatus"] == "waiting")
    async with EmbeddedHost(APPS / "human_interaction", tmp_path, HostOptions(drain_s=2.0)) as host:
        assert (await _post(http, f"{host.url}/api/requests/r4/answer", True))[0] == 202
        # The key survives as well: only the port of the old address is out of date.
        moved = {"statusQueryGetUri": host.url + "/" + links["statusQueryGetUri"].split("/", 3)[3]}
        assert (await _output(http, moved))["charged"] == 10


# -- monitor


@pytest.mark.parametrize(
    ("ready_after", "minutes", "output"), [(3, 3, {"ready": True, "polls": 4}), (99, 11, {"ready": False})]
)
async def test_monitor_polls_each_minute_until_ready_or_expired(start_host, http, ready_after, minutes, output):
    clock = VirtualClock(START_AT)
    host = await start_host("monitor", HostOptions(clock=clock, drain_s=2.0))
    links = await _start(http, f"{host.url}/api/monitor/watch_job/job/{ready_after}")
    for polls in range(1, minutes + 1):
        if polls <= 10:
            await _status_when(
                http,
                links,
                lambda s, polls=polls: s["customStatus"] == {"polls": polls} and host.durable.engine.active_jobs == 0,
            )
        clock.advance_s(60)
    assert await _output(http, links) == output


async def test_an_eternal_monitor_rolls_over(start_host, http):
    clock = VirtualClock(START_AT)
    host = await start_host("monitor", HostOptions(clock=clock, drain_s=2.0))
    links = await _start(http, f"{host.url}/api/monitor/watch_job_eternally/job/3")
    for _ in range(200):
        if clock.next_alarm_at is not None and host.durable.engine.active_jobs == 0:
            clock.advance_to_next()
        async with http.get(links["statusQueryGetUri"]) as response:
            if response.status == 200:
                break
        await asyncio.sleep(0.005)
    assert await _output(http, links) == {"ready": True, "generations": 3}


# -- counter entity


async def test_a_counter_counts_for_clients_and_orchestrators(start_host, http):
    host = await start_host("counter_entity")
    address = f"{host.url}/api/counter/visits"

    async def state():
        async with http.get(address) as response:
            return json.loads(await response.text())

    async def until(expected):
        for _ in range(500):
            if await state() == expected:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(await state())

    assert (await state())["exists"] is False
    for value in (3, 4):
        assert (await _post(http, f"{address}?value={value}"))[0] == 202
    await until({"exists": True, "state": 7})
    output = await _output(http, await _start(http, f"{host.url}/api/tally/visits"))
    assert output == {"before": 7, "after": 14, "refused": "no operation explode"}
    async with http.delete(address) as response:
        assert response.status == 202
    for _ in range(500):
        if not (await state())["exists"]:
            break
        await asyncio.sleep(0.01)
    assert (await state())["exists"] is False
