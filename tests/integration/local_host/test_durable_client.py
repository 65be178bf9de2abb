"""Every method of DurableOrchestrationClient, called by an app, over real HTTP."""

from __future__ import annotations

import asyncio
import json

import pytest


class Zoo:
    """Calls one client method through the app's HTTP function."""

    def __init__(self, host, http):
        self.url, self._http = host.url, http

    async def raw(self, method, instance_id="", body=None):
        async with self._http.post(f"{self.url}/api/call/{method}/{instance_id}", json=body or {}) as response:
            return response.status, response.headers.copy(), json.loads(await response.text() or "null")

    async def __call__(self, method, instance_id="", **body):
        status, _, value = await self.raw(method, instance_id, body)
        assert status == 200, (method, value)
        return value

    async def until(self, instance_id, runtime_status):
        for _ in range(500):
            status = await self("get_status", instance_id)
            if status.get("runtimeStatus") == runtime_status:
                return status
            await asyncio.sleep(0.01)
        raise AssertionError(status)


@pytest.fixture
async def zoo(start_host, http):
    return Zoo(await start_host("client_zoo"), http)


async def test_start_new_and_get_status(zoo):
    assert await zoo("start_new", "a1", name="echo", input={"x": [1]}) == "a1"
    status = await zoo.until("a1", "Completed")
    assert (status["name"], status["instanceId"], status["output"]) == ("echo", "a1", {"echo": {"x": [1]}})
    assert len(await zoo("start_new", name="echo")) == 32
    assert (await zoo("get_status", "unknown"))["known"] is False
    status, _, body = await zoo.raw("start_new", "", {"name": "nobody"})
    assert status == 500
    assert "nobody" in body["error"]


async def test_status_queries(zoo):
    await zoo("start_new", "done", name="echo")
    await zoo("start_new", "waiting", name="wait_for_go")
    await zoo.until("done", "Completed")
    await zoo.until("waiting", "Running")
    assert {status["instanceId"] for status in await zoo("get_status_all")} == {"done", "waiting"}
    assert [s["instanceId"] for s in await zoo("get_status_by", statuses=["Completed"])] == ["done"]
    assert [s["instanceId"] for s in await zoo("get_status_by", statuses=["Running"])] == ["waiting"]


async def test_raise_event(zoo):
    await zoo("start_new", "i", name="wait_for_go")
    await zoo.until("i", "Running")
    await zoo("raise_event", "i", name="Go", data={"n": 1})
    assert json.loads((await zoo.until("i", "Completed"))["output"]) == {"n": 1}
    assert (await zoo.raw("raise_event", "unknown", {"name": "Go"}))[0] == 500
    assert (await zoo.raw("raise_event", "i", {"name": "Go"}))[0] == 500  # it has ended


async def test_terminate(zoo):
    await zoo("start_new", "i", name="wait_for_go")
    await zoo.until("i", "Running")
    await zoo("terminate", "i")
    assert (await zoo.until("i", "Terminated"))["output"] == "no longer needed"
    await zoo("terminate", "i")  # 410 is not an error for the SDK
    assert (await zoo.raw("terminate", "unknown"))[0] == 500


async def test_suspend_and_resume(zoo):
    await zoo("start_new", "i", name="wait_for_go")
    await zoo.until("i", "Running")
    await zoo("suspend", "i")
    await zoo.until("i", "Suspended")
    await zoo("raise_event", "i", name="Go", data=1)
    await asyncio.sleep(0.05)
    assert (await zoo("get_status", "i"))["runtimeStatus"] == "Suspended"
    await zoo("resume", "i")
    assert (await zoo.until("i", "Completed"))["output"] == "1"


async def test_rewind_runs_only_what_failed(zoo, http):
    await zoo("start_new", "i", name="needs_repair")
    await zoo.until("i", "Failed")
    async with http.post(f"{zoo.url}/api/repair") as response:
        assert response.status == 200
    await zoo("rewind", "i")
    assert (await zoo.until("i", "Completed"))["output"] == [1, "repaired"]
    assert (await zoo.raw("rewind", "i"))[0] == 500  # only a failed one can be rewound


async def test_restart(zoo):
    await zoo("start_new", "i", name="echo", input="again")
    await zoo.until("i", "Completed")
    restarted = await zoo("restart", "i")
    new_id = restarted["id"] if isinstance(restarted, dict) else restarted
    assert new_id != "i"
    assert (await zoo.until(new_id, "Completed"))["output"] == {"echo": "again"}
    await zoo("restart", "i", new=False)
    assert (await zoo.until("i", "Completed"))["output"] == {"echo": "again"}


async def test_purge(zoo):
    await zoo("start_new", "i", name="echo")
    await zoo("start_new", "j", name="echo")
    await zoo("start_new", "k", name="wait_for_go")
    for instance_id, status in (("i", "Completed"), ("j", "Completed"), ("k", "Running")):
        await zoo.until(instance_id, status)
    assert await zoo("purge", "i") == 1
    assert await zoo("purge", "i") == 0
    assert await zoo("purge_by", statuses=["Completed"]) == 1
    assert [status["instanceId"] for status in await zoo("get_status_all")] == ["k"]


async def test_entities(zoo):
    assert (await zoo("read_entity_state", "n"))["exists"] is False
    await zoo("signal_entity", "n", text="one")
    await zoo("signal_entity", "n", text="two")
    for _ in range(500):
        state = await zoo("read_entity_state", "n")
        if state["state"] == ["one", "two"]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(state)


async def test_wait_for_completion_and_check_status(zoo):
    await zoo("start_new", "quick", name="echo", input=1)
    status, _, body = await zoo.raw("wait_for_completion", "quick", {"timeout_ms": 5000})
    assert (status, body) == (200, {"echo": 1})
    await zoo("start_new", "slow", name="wait_for_go")
    status, headers, body = await zoo.raw("wait_for_completion", "slow", {"timeout_ms": 60})
    assert status == 202
    assert headers["Location"] == body["statusQueryGetUri"]
    await zoo("start_new", "bad", name="needs_repair")
    status, _, body = await zoo.raw("wait_for_completion", "bad", {"timeout_ms": 5000})
    assert (status, body["runtimeStatus"]) == (500, "Failed")
    status, headers, body = await zoo.raw("check_status", "slow")
    assert (status, headers["Retry-After"], body["id"]) == (202, "10", "slow")
    assert body["statusQueryGetUri"].startswith(f"{zoo.url}/runtime/webhooks/durabletask/instances/slow?")
    payload = await zoo("management_payload", "slow")
    assert payload["id"] == "slow"
    assert "slow/terminate" in payload["terminatePostUri"]
