"""A host that is filled over HTTP, refuses, is drained and goes on; nothing it was given is lost."""

from __future__ import annotations

import asyncio

from cli.exit_codes import ExitCode
from cli.main import main
from local_host.queues import OutgoingMessage
from local_host.store_report import status


async def _post(http, host, path):
    async with http.post(f"{host.url}/api/{path}") as response:
        return response.status, await response.text()


async def _load(http, host):
    async with http.get(f"{host.url}/admin/host/status", headers={"x-functions-key": host.keys.master}) as response:
        return (await response.json())["load"]


async def _load_when(http, host, is_so):
    """The load once it is as wanted; the wait is for real work of other tasks, not for a clock."""
    for _ in range(1_000):
        load = await _load(http, host)
        if is_so(load):
            return load
        await asyncio.sleep(0.01)
    raise AssertionError(f"never: {load}")


async def test_fill_refuse_drain_go_on(start_host, http, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_HOST_MAX_OPEN_ACTIVITIES", "2")
    monkeypatch.setenv("LOCAL_HOST_MAX_PENDING_STARTS", "5")
    host = await start_host("backpressure")
    data, engine = tmp_path / "data", host.durable.engine
    for name, instance_id in (("waits", "waiting"), ("holds", "holding")):
        assert (await _post(http, host, f"start/{name}/{instance_id}"))[0] == 200

    load = await _load_when(http, host, lambda load: load["open_activities"] == 3)
    assert load["is_full"]
    assert (load["max_open_activities"], load["max_pending_starts"]) == (2, 5)
    code, text = await _post(http, host, "start/leaf/from-outside")
    assert (code, "3 of 2 open activities" in text) == (503, True)
    for number in range(3):
        host.broker.send("requests", OutgoingMessage(f"message-{number}".encode()))
    # An event for a running instance, its activity and what that starts through its client go on meanwhile.
    assert (await _post(http, host, "go/waiting"))[0] == 200
    for instance_id in ("waiting", "started-within"):
        ended = None
        async with asyncio.timeout(30):
            while ended is None:
                ended = await engine.wait_for_end(instance_id, 1)
        assert ended.instance.status == "Completed"
    assert host.broker.counts("requests").active == 3  # nobody took one, so none has used up a delivery
    found = await asyncio.to_thread(status, data)
    assert found["bounds"] == {"max_pending_starts": 5, "max_open_activities": 2}
    assert (found["pending_starts"], found["open"]["activities"]) == (0, 3)
    assert await asyncio.to_thread(main, ["host", "--status", "--data", str(data)]) == ExitCode.OK
    assert "activities 3 of 2 (full" in capsys.readouterr().out

    assert (await _post(http, host, "release"))[0] == 200
    load = await _load_when(http, host, lambda load: not load["is_full"])
    assert load["refused_starts"] == 1
    assert (await _post(http, host, "start/leaf/from-outside"))[0] == 200
    for instance_id in ("holding", "from-outside", "message-0", "message-1", "message-2"):
        ended = None
        async with asyncio.timeout(30):
            while ended is None:
                ended = await engine.wait_for_end(instance_id, 1)
        assert ended.instance.status == "Completed", instance_id
    counts = host.broker.counts("requests")
    assert (counts.active, counts.dead_letter) == (0, 0)


async def test_the_bounds_are_gone_with_the_host(start_host, tmp_path):
    host = await start_host("backpressure")
    assert (tmp_path / "data" / "bounds.json").is_file()
    await host.stop()
    assert not (tmp_path / "data" / "bounds.json").exists()
    (tmp_path / "data" / "bounds.json").write_text("{}")  # as a host leaves it that was killed
    assert status(tmp_path / "data")["bounds"] is None
