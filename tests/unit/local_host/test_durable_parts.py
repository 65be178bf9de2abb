"""Storage, clock, durable HTTP, rewind and status projection, each through its own door."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest
from aiohttp import web
from azure.durable_functions.models.history import HistoryEvent

from local_host.durable.clock import RealClock, VirtualClock
from local_host.durable.executor import patch_timestamp_parser, sdk_input
from local_host.durable.functions import ActivityError
from local_host.durable.history import (
    Event,
    EventRaised,
    ExecutionStarted,
    OrchestratorStarted,
    SubCreated,
    TaskCompleted,
    TaskScheduled,
    dump_chunk,
    load_chunk,
    to_row,
)
from local_host.durable.http_calls import DurableHttp, HttpLimits
from local_host.durable.storage import LOG_PAGES, SCHEMA_VERSION, Storage, StorageError
from tests.unit.local_host.durable_app import START_AT, PlainApp, running


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    storage = Storage(tmp_path / "hub.db", synchronous="NORMAL")
    await storage.open()
    yield storage
    await storage.close()


def add_row(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("INSERT INTO entities VALUES (?,1,'1','now')", (key,))


def count_rows(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM entities").fetchone()[0])


async def test_a_failing_change_undoes_itself_and_none_of_its_neighbours(storage: Storage) -> None:
    def failing(connection: sqlite3.Connection) -> None:
        add_row(connection, "undone")
        raise RuntimeError("halfway")

    changes = [storage.write(lambda c, n=n: add_row(c, f"k{n}")) for n in range(5)]
    results = await asyncio.gather(*changes[:2], storage.write(failing), *changes[2:], return_exceptions=True)
    assert [str(r) for r in results if isinstance(r, Exception)] == ["halfway"]
    assert await storage.read(count_rows) == 5


async def test_a_file_of_a_newer_host_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(StorageError, match="schema"):
        await Storage(path).open()


async def test_the_log_has_its_length_from_the_beginning_and_keeps_it(tmp_path: Path) -> None:
    log = tmp_path / "hub.db-wal"
    storage = Storage(tmp_path / "hub.db")
    await storage.open()
    length = log.stat().st_size
    assert length > LOG_PAGES * 4096
    for number in range(400):  # of two pages at least: more than the log holds, so that it is begun again on the way
        await storage.write(lambda c, number=number: add_row(c, f"k{number}"))
    assert log.stat().st_size <= length + 16 * 4120
    assert await storage.read(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2
    copy = tmp_path / "copy.db"  # what a loss of power would leave: the file and its log, taken while it is open
    copy.write_bytes((tmp_path / "hub.db").read_bytes())
    (tmp_path / "copy.db-wal").write_bytes(log.read_bytes())
    await storage.close()
    with sqlite3.connect(copy) as left:
        assert count_rows(left) == 400


CRAMPED = """
import asyncio, resource, sys
from local_host.durable.storage import Storage

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    storage = Storage(sys.argv[1])
    await storage.open()
    await storage.write(lambda c: c.execute("INSERT INTO entities VALUES ('k',1,'1','now')") and None)
    print(await storage.read(lambda c: [c.execute(q).fetchone()[0] for q in (
        "SELECT count(*) FROM entities", "PRAGMA synchronous", "PRAGMA wal_autocheckpoint")]))
    await storage.close()

asyncio.run(main())
"""


def test_a_file_without_room_for_the_whole_log_is_used_all_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CRAMPED, str(tmp_path / "hub.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"[1, 2, {LOG_PAGES}]\n"), done.stderr


def test_a_stored_row_leaves_out_what_is_not_read_and_older_rows_are_read_still() -> None:
    events: list[Event] = [
        OrchestratorStarted("2026-01-01T00:00:00.000000Z"),
        ExecutionStarted("2026-01-01T00:00:00.000000Z", "name", "", None),
        TaskScheduled("2026-01-01T00:00:00.000000Z", 0, "perform_step", "digest"),
        SubCreated("2026-01-01T00:00:00.000000Z", 1, "map", None, "child", "digest"),
        TaskCompleted("2026-01-01T00:00:00.000000Z", 0, None),
        EventRaised("2026-01-01T00:00:00.000000Z", "cancel", None),
    ]
    stored = dump_chunk(events)
    assert load_chunk(stored) == events
    assert "IsPlayed" not in stored
    assert "-1" not in stored
    assert load_chunk(json.dumps([to_row(event) for event in events])) == events


async def test_a_closed_storage_says_so(storage: Storage) -> None:
    await storage.close()
    with pytest.raises(StorageError, match="not open"):
        await storage.read(count_rows)


async def test_virtual_alarms_ring_in_order_of_time_then_of_creation_and_can_be_taken_back() -> None:
    clock, rung = VirtualClock(START_AT), list[str]()
    clock.call_at(START_AT + timedelta(seconds=5), lambda: rung.append("late"))
    clock.call_at(START_AT + timedelta(seconds=2), lambda: rung.append("first"))
    clock.call_at(START_AT + timedelta(seconds=2), lambda: rung.append("second"))
    clock.call_at(START_AT + timedelta(seconds=3), lambda: rung.append("never")).cancel()
    assert clock.advance_to_next()
    assert (rung, clock.now()) == (["first", "second"], START_AT + timedelta(seconds=2))
    clock.advance_s(100)
    assert rung == ["first", "second", "late"]
    assert not clock.advance_to_next()


async def test_the_real_clock_rings_what_is_overdue_at_once() -> None:
    rung = asyncio.Event()
    RealClock().call_at(START_AT, rung.set)
    await asyncio.wait_for(rung.wait(), 5)


@pytest.fixture
async def echo_server() -> AsyncIterator[str]:
    polls = {"n": 0}

    async def echo(request: web.Request) -> web.Response:
        headers = {"X-One": "1", "Content-Language": "en"}
        text = f"{request.method} {await request.text()} {request.headers.get('Content-Type')}"
        return web.Response(text=text, headers=headers)

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound("/echo")

    async def slow(request: web.Request) -> web.Response:
        polls["n"] += 1
        if polls["n"] < 3:
            return web.Response(status=202, headers={"Location": "/slow", "Retry-After": "7"})
        return web.Response(text="finally")

    async def huge(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 5000)

    app = web.Application()
    for path, handler in (("/echo", echo), ("/redirect", redirect), ("/slow", slow), ("/huge", huge)):
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_durable_http_returns_status_headers_and_content(echo_server: str) -> None:
    http = DurableHttp(VirtualClock(START_AT))
    request = {"method": "POST", "uri": f"{echo_server}/echo", "content": '{"a": 1}', "headers": None}
    answer = json.loads(await http.call(json.dumps(request)))
    assert answer["statusCode"] == 200
    assert answer["content"] == 'POST {"a": 1} text/plain; charset=utf-8'
    assert answer["headers"]["X-One"] == "1"
    assert not {"Content-Type", "Content-Language", "Content-Length"} & set(answer["headers"])
    redirected = json.loads(await http.call(json.dumps({"method": "GET", "uri": f"{echo_server}/redirect"})))
    assert redirected["statusCode"] == 302
    await http.close()


async def test_durable_http_fails_the_task_on_transport_errors_tokens_and_oversize(echo_server: str) -> None:
    http = DurableHttp(VirtualClock(START_AT), HttpLimits(max_response_bytes=1000))
    with pytest.raises(ActivityError, match="larger than 1000 bytes"):
        await http.call(json.dumps({"method": "GET", "uri": f"{echo_server}/huge"}))
    with pytest.raises(ActivityError):
        await http.call(json.dumps({"method": "GET", "uri": "http://127.0.0.1:1/"}))
    with pytest.raises(ActivityError, match="managed identity"):
        await http.call(json.dumps({"method": "GET", "uri": echo_server, "tokenSource": {"resource": "x"}}))
    await http.close()


async def test_a_polled_call_stays_one_task(echo_server: str, tmp_path: Path) -> None:
    app = PlainApp()

    @app.orchestration
    def calls(context: Any) -> Any:
        answer = yield context.call_http("GET", f"{echo_server}/slow")
        again = yield context.call_http("GET", f"{echo_server}/echo", content="x", is_raw_str=True)
        return [answer["content"], again["content"]]

    async with running(app, tmp_path) as bench:
        await bench.start("calls")
        for _ in range(200):
            snapshot = await bench.engine.status("run")
            assert snapshot is not None
            if snapshot.instance.is_terminal:
                break
            await asyncio.sleep(0.01)
            bench.clock.advance_to_next()
        assert json.loads(snapshot.instance.output or "null") == ["finally", "GET x text/plain; charset=utf-8"]
        assert (bench.clock.now() - START_AT).total_seconds() == 14


def test_the_timestamp_parser_is_patched_once_and_still_reads_what_dateutil_reads() -> None:
    assert patch_timestamp_parser()
    assert patch_timestamp_parser()
    usual = HistoryEvent(EventType=12, EventId=-1, IsPlayed=False, Timestamp="2026-01-01T00:00:00.000000Z")
    odd = HistoryEvent(EventType=12, EventId=-1, IsPlayed=False, Timestamp="Jan 1 2026 00:00:00 UTC")
    assert usual.timestamp == odd.timestamp == START_AT


@pytest.mark.parametrize(
    ("document", "expected"),
    [(None, None), ('"{\\"a\\": 1}"', '{"a": 1}'), ('{"a": 1}', '{"a": 1}'), ("[1]", "[1]"), ('"plain"', '"plain"')],
)
def test_start_documents_become_text_the_sdk_can_decode(document: str | None, expected: str | None) -> None:
    assert sdk_input(document) == expected


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_rewind_after_a_failed_retry_runs_the_last_attempt_again(tmp_path: Path, warm: bool) -> None:
    app, healthy = PlainApp(), {"now": False}

    @app.activity
    def fragile(value: Any) -> str:
        if not healthy["now"]:
            raise RuntimeError("down")
        return "up"

    @app.orchestration
    def retries(context: Any) -> Any:
        return (yield context.call_activity_with_retry("fragile", df.RetryOptions(1000, 2), 1))

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("retries")
        assert (await bench.run_to_end("run")).status == "Failed"
        healthy["now"] = True
        await bench.engine.rewind("run", "fixed")
        item = await bench.run_to_end("run")
        assert (item.status, item.output) == ("Completed", '"up"')
        assert len(app.calls) == 3


async def test_rewind_runs_work_again_that_the_host_had_cut_off(tmp_path: Path) -> None:
    app = PlainApp()

    @app.activity
    def quick(value: Any) -> Any:
        return value

    @app.entity_function
    def counter(context: Any) -> None:
        context.set_result(7)

    @app.orchestration
    def cut(context: Any) -> Any:
        slow = context.call_activity("nap", 100)
        fast = context.call_activity("quick", 1)
        yield context.task_any([slow, fast])
        yield context.call_activity("missing", 1)
        return (yield context.task_all([slow, context.call_entity(df.EntityId("counter", "k"), "get")]))

    async with running(app, tmp_path) as bench:

        @app.activity
        async def nap(value: float) -> float:
            await bench.clock.sleep_s(value)
            return value

        await bench.start("cut")
        await bench.settle()
        snapshot = await bench.engine.status("run")
        assert snapshot is not None
        assert snapshot.instance.status == "Failed"

        @app.activity
        def missing(value: Any) -> str:
            return "here now"

        await bench.engine.rewind("run", "deployed")
        item = await bench.run_to_end("run")
        assert (item.status, json.loads(item.output)) == ("Completed", [100, 7])


async def test_a_message_to_an_execution_that_is_over_leaves_no_row(tmp_path: Path) -> None:
    app = PlainApp()

    @app.orchestration
    def child(context: Any) -> Any:
        return (yield context.wait_for_external_event("go"))

    @app.orchestration
    def parent(context: Any) -> Any:
        yield context.call_sub_orchestrator("child", None, "kid")

    async with running(app, tmp_path) as bench:
        await bench.start("parent")
        await bench.settle()
        await bench.engine.terminate("run", "stop")
        await bench.engine.raise_event("kid", "go", "1")
        await bench.run_to_end("kid")
        rows = await bench.storage.read(lambda c: c.execute("SELECT count(*) FROM inbox").fetchone()[0])
        assert rows == 0


async def test_a_warm_instance_is_replayed_cold_now_and_then(tmp_path: Path) -> None:
    app, drift = PlainApp(), {"by": 0}

    @app.activity
    def quick(value: Any) -> Any:
        return value

    @app.orchestration
    def drifting(context: Any) -> Any:
        offset = drift["by"]
        for n in range(40):
            yield context.call_activity("quick", n + offset)
            drift["by"] += 1

    async with running(app, tmp_path, warm=True) as bench:
        await bench.start("drifting")
        item = await bench.run_to_end("run")
        assert item.status == "Failed"
        assert item.output.startswith("Non-Deterministic workflow detected: ")
        assert bench.engine.episode_count < 20
