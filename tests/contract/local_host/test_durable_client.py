"""Every method of the SDK's DurableOrchestrationClient against the RPC endpoints, over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import azure.durable_functions as df
import azure.functions as func
import pytest
from aiohttp import web
from azure.durable_functions.models.utils import http_utils
from yarl import URL

from local_host.durable.clock import RealClock
from local_host.durable.engine import DurableEngine
from local_host.durable.rpc import Links, build_rpc_app, client_binding_json, webhook_handler
from local_host.durable.storage import Storage
from tests.unit.local_host.durable_app import PlainApp

KEY = "system-key-of-this-test"


@dataclass
class Site:
    client: Any
    engine: DurableEngine
    app: PlainApp
    origin: str
    rpc_url: str
    binding: str

    async def end_of(self, instance_id: str) -> Any:
        await self.engine.wait_for_end(instance_id, 10)
        return await self.client.get_status(instance_id, show_input=True)


def make_app() -> PlainApp:
    app = PlainApp()
    app.healthy = False  # type: ignore[attr-defined]

    @app.activity
    def hello(value: Any) -> str:
        return f"Hello {value}!"

    @app.activity
    def fragile(value: Any) -> str:
        if not app.healthy:  # type: ignore[attr-defined]
            raise RuntimeError("down")
        return "up"

    @app.orchestration
    def greet(context: Any) -> Any:
        return (yield context.call_activity("hello", context.get_input()))

    @app.orchestration
    def approval(context: Any) -> Any:
        context.set_custom_status("waiting")
        return (yield context.wait_for_external_event("Approval"))

    @app.orchestration
    def breaks(context: Any) -> Any:
        return (yield context.call_activity("fragile", None))

    @app.orchestration
    def says_version(context: Any) -> Any:
        yield context.call_activity("hello", "x")
        return context.version

    @app.entity_function
    def counter(context: Any) -> None:
        value = context.get_state(lambda: 0)
        if context.operation_name == "add":
            context.set_state(value + context.get_input())
        elif context.operation_name == "delete":
            context.destruct_on_exit()

    return app


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    app = make_app()
    engine = DurableEngine(app, Storage(tmp_path / "hub.db", synchronous="NORMAL"), RealClock())
    await engine.start()
    web_app = web.Application()
    runner = web.AppRunner(web_app)
    rpc_runner = web.AppRunner(build_rpc_app(engine, base_url="http://127.0.0.1:1", task_hub="Hub", key=KEY))
    await rpc_runner.setup()
    rpc_site = web.TCPSite(rpc_runner, "127.0.0.1", 0)
    await rpc_site.start()
    rpc_port = rpc_runner.addresses[0][1]
    web_app.router.add_route("*", "/{tail:.*}", webhook_handler(engine, Links("http://127.0.0.1:1", "Hub", KEY)))
    await runner.setup()
    public = web.TCPSite(runner, "127.0.0.1", 0)
    await public.start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    rpc_url = f"http://127.0.0.1:{rpc_port}/durabletask/"
    binding = client_binding_json(origin, rpc_url, "Hub", KEY)
    try:
        yield Site(df.DurableOrchestrationClient(binding), engine, app, origin, rpc_url, binding)
    finally:
        await http_utils._close_session()
        await runner.cleanup()
        await rpc_runner.cleanup()
        await engine.stop()


async def test_start_and_status(site: Site) -> None:
    instance_id = await site.client.start_new("greet", client_input="Tokyo")
    status = await site.end_of(instance_id)
    assert status.runtime_status is df.OrchestrationRuntimeStatus.Completed
    assert status.output == "Hello Tokyo!"
    assert status.input_ == '"Tokyo"'
    assert status.name == "greet"
    assert status.created_time.tzinfo is not None
    assert await site.client.start_new("greet", "chosen-id") == "chosen-id"


async def test_unknown_names_and_duplicates_are_refused(site: Site) -> None:
    with pytest.raises(Exception, match="The function 'nope' doesn't exist"):
        await site.client.start_new("nope")
    await site.client.start_new("approval", "one")
    with pytest.raises(Exception, match="already exists"):
        await site.client.start_new("approval", "one")


async def test_version_reaches_the_orchestrator(site: Site) -> None:
    instance_id = await site.client.start_new("says_version", version="2.1")
    assert (await site.end_of(instance_id)).output == "2.1"


async def test_events_arrive_as_the_sdk_sends_them(site: Site) -> None:
    instance_id = await site.client.start_new("approval")
    status = await site.client.get_status(instance_id)
    await site.client.raise_event(instance_id, "Approval", True)
    status = await site.end_of(instance_id)
    # The client encodes twice, so user code sees the text of the value (known behaviour of SDK 1.x).
    assert status.output == "true"
    assert status.custom_status == "waiting"
    with pytest.raises(Exception, match="gone"):
        await site.client.raise_event(instance_id, "Approval", True)
    with pytest.raises(Exception, match="No instance"):
        await site.client.raise_event("unknown", "Approval", True)


async def test_history_is_under_both_names(site: Site) -> None:
    instance_id = await site.client.start_new("greet", client_input="x")
    await site.engine.wait_for_end(instance_id, 10)
    status = await site.client.get_status(instance_id, show_history=True, show_history_output=True)
    assert status.history == status.historyEvents
    assert [event["EventType"] for event in status.history] == [
        "ExecutionStarted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
    assert status.history[1]["FunctionName"] == "hello"
    assert status.history[1]["Result"] == "Hello x!"
    assert "EventId" not in status.history[1]


async def test_queries_filter_by_time_status_and_prefix(site: Site) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    for name in ("a-1", "a-2", "b-1"):
        await site.client.start_new("approval", name)
    await site.client.raise_event("a-1", "Approval", 1)
    await site.engine.wait_for_end("a-1", 10)
    assert len(await site.client.get_status_all()) == 3
    found = await site.client.get_status_by(
        created_time_from=before, runtime_status=[df.OrchestrationRuntimeStatus.Completed]
    )
    assert [status.instance_id for status in found] == ["a-1"]
    found = await site.client.get_status_by(instance_id_prefix="a-")
    assert sorted(status.instance_id for status in found) == ["a-1", "a-2"]
    assert await site.client.get_status_by(created_time_to=before) == []


async def test_terminate_suspend_resume(site: Site) -> None:
    await site.client.start_new("approval", "one")
    await site.client.suspend("one", "pause & think")
    assert (await site.client.get_status("one")).runtime_status is df.OrchestrationRuntimeStatus.Suspended
    with pytest.raises(Exception, match="500"):
        await site.client.suspend("one", "again")
    await site.client.raise_event("one", "Approval", 1)
    await site.client.resume("one", "go")
    assert (await site.end_of("one")).runtime_status is df.OrchestrationRuntimeStatus.Completed
    await site.client.start_new("approval", "two")
    await site.client.terminate("two", "enough")
    status = await site.end_of("two")
    assert status.runtime_status is df.OrchestrationRuntimeStatus.Terminated
    assert status.output == "enough"
    await site.client.terminate("two", "again")
    with pytest.raises(Exception, match="No instance"):
        await site.client.terminate("unknown", "x")


async def test_rewind_runs_only_failed_instances(site: Site) -> None:
    await site.client.start_new("breaks", "one")
    assert (await site.end_of("one")).runtime_status is df.OrchestrationRuntimeStatus.Failed
    site.app.healthy = True  # type: ignore[attr-defined]
    await site.client.rewind("one", "fixed")
    assert (await site.end_of("one")).output == "up"
    with pytest.raises(Exception, match="only supported on failed"):
        await site.client.rewind("one", "again")
    with pytest.raises(Exception, match="No instance"):
        await site.client.rewind("unknown", "x")


async def test_restart_uses_the_original_input(site: Site) -> None:
    await site.client.start_new("greet", "one", "Oslo")
    await site.end_of("one")
    body = await site.client.restart("one")
    fresh = body["id"]
    assert fresh != "one"
    assert (await site.end_of(fresh)).output == "Hello Oslo!"
    assert (await site.client.restart("one", restart_with_new_instance_id=False))["id"] == "one"
    assert (await site.end_of("one")).output == "Hello Oslo!"


async def test_purge_removes_only_ended_instances(site: Site) -> None:
    await site.client.start_new("approval", "alive")
    await site.client.start_new("greet", "ended", "x")
    await site.end_of("ended")
    assert (await site.client.purge_instance_history("alive")).instances_deleted == 0
    assert (await site.client.purge_instance_history("ended")).instances_deleted == 1
    assert not await site.client.get_status("ended")
    await site.client.start_new("greet", "second", "x")
    await site.end_of("second")
    since = datetime.now(UTC) - timedelta(minutes=5)
    done = await site.client.purge_instance_history_by(since, None, [df.OrchestrationRuntimeStatus.Completed])
    assert done.instances_deleted == 1
    assert (await site.client.purge_instance_history_by(since)).instances_deleted == 0


async def test_entities_by_client(site: Site) -> None:
    entity = df.EntityId("Counter", "Key1")
    assert not (await site.client.read_entity_state(entity)).entity_exists
    await site.client.signal_entity(entity, "add", 5)
    await site.client.signal_entity(entity, "add", 2)
    async with asyncio.timeout(10):
        while (await site.client.read_entity_state(entity)).entity_state != 7:  # noqa: ASYNC110  # no event to wait on
            await asyncio.sleep(0.01)
    with pytest.raises(Exception, match="400"):
        await site.client.signal_entity(df.EntityId("Nothing", "k"), "add", 1)


async def test_wait_for_completion(site: Site) -> None:
    request = func.HttpRequest("POST", f"{site.origin}/api/x", body=b"")
    await site.client.start_new("greet", "one", "Rome")
    response = await site.client.wait_for_completion_or_create_check_status_response(request, "one", 10_000, 50)
    assert (response.status_code, response.get_body()) == (200, b"Hello Rome!")


async def test_the_links_of_a_check_status_response_work_with_the_system_key(site: Site) -> None:
    request = func.HttpRequest("POST", f"{site.origin}/api/x", body=b"")
    await site.client.start_new("approval", "one")
    response = site.client.create_check_status_response(request, "one")
    links = json.loads(response.get_body())
    assert response.headers["Location"] == links["statusQueryGetUri"]
    async with aiohttp.ClientSession() as session:
        async with session.get(links["statusQueryGetUri"]) as got:
            assert got.status == 202
            assert got.headers["Retry-After"] == "5"
        async with session.get(links["statusQueryGetUri"].replace(KEY, "wrong")) as got:
            assert got.status == 401
        async with session.post(links["sendEventPostUri"].replace("{eventName}", "Approval"), json={"ok": 1}) as got:
            assert got.status == 202
        # A plain webhook body reaches user code as the document itself.
        assert (await site.end_of("one")).output == {"ok": 1}
        url = (
            f"{site.origin}/runtime/webhooks/durabletask/orchestrators/greet/w?timeout=10&pollingInterval=1&code={KEY}"
        )
        async with session.post(url, json=[1, 2]) as got:
            assert (got.status, await got.json()) == (200, "Hello [1, 2]!")
        async with session.put(links["statusQueryGetUri"]) as got:
            assert got.status == 404


async def test_the_private_endpoints_refuse_web_pages(site: Site) -> None:
    base = site.client._orchestration_bindings.rpc_base_url
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{base}orchestrators/greet", headers={"Origin": "https://evil.example"}) as got:
            assert got.status == 403
        async with session.get(f"{base}instances/", headers={"Host": "evil.example"}) as got:
            assert got.status == 403


async def test_paging_follows_the_token(site: Site) -> None:
    for n in range(5):
        await site.client.start_new("approval", f"i{n}")
    url = f"{site.origin}/runtime/webhooks/durabletask/instances?top=2&code={KEY}"
    seen: list[str] = []
    headers: dict[str, str] = {}
    async with aiohttp.ClientSession() as session:
        for _ in range(5):
            async with session.get(url, headers=headers) as got:
                seen += [item["instanceId"] for item in await got.json()]
                token = got.headers.get("x-ms-continuation-token")
            if token is None:
                break
            headers = {"x-ms-continuation-token": token}
        async with session.get(url, headers={"x-ms-continuation-token": "bm9wZQ=="}) as got:
            assert got.status == 400
    assert sorted(seen) == [f"i{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "orchestrators/greet", b"{not json", 400),
        ("POST", "orchestrators/greet", b"\xff\xfe", 400),
        ("POST", "orchestrators/greet/@bad", b"", 400),
        ("POST", "orchestrators/greet/a%2Fb", b"", 400),
        ("POST", "orchestrators/greet?timeout=nan", b"", 400),
        ("GET", "instances/?top=inf", b"", 400),
        ("GET", "instances/?runtimeStatus=Sleeping", b"", 400),
        ("GET", "instances/?createdTimeFrom=yesterday", b"", 400),
        ("GET", "instances/none", b"", 404),
        ("POST", "instances/none/raiseEvent/go", b"1", 404),
        ("POST", "instances/none/dance", b"", 404),
        ("POST", "instances/none/restart", b"", 400),
        ("DELETE", "instances/", b"", 400),
        ("POST", "entities/counter/k", b"", 400),
        ("POST", "entities/counter/k?op=add", b"{", 400),
        ("GET", "instances/x?taskHub=other", b"", 400),
        ("PATCH", "instances/x", b"", 404),
        ("GET", "", b"", 404),
        ("GET", "makeprimary/x/y/z/w", b"", 404),
    ],
)
async def test_malformed_requests_get_their_4xx_and_leave_no_trace(
    site: Site, method: str, path: str, body: bytes, status: int
) -> None:
    base = site.client._orchestration_bindings.rpc_base_url
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:
        url = URL(f"{base}{path}", encoded=True)
        async with session.request(method, url, data=body, headers=headers) as got:
            assert got.status == status
    assert await site.client.get_status_all() == []


async def test_a_full_host_refuses_starts_from_outside_and_nothing_else(site: Site) -> None:
    await site.client.start_new("approval", "waits")
    await site.client.start_new("greet", "done", "x")
    await site.end_of("done")
    places = [f"place-{number}" for number in range(site.engine.admission.bounds.max_pending_starts)]
    for place in places:
        site.engine.admission.add(place)
    with pytest.raises(Exception, match="too much open work"):
        await site.client.start_new("greet", "refused", "x")
    for path in ("orchestrators/greet/refused", "instances/done/restart"):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{site.origin}/runtime/webhooks/durabletask/{path}?code={KEY}", json="x") as response,
        ):
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert (await site.client.get_status("refused")).instance_id is None  # nothing of it was stored

    within = df.DurableOrchestrationClient(
        json.dumps(json.loads(site.binding) | {"rpcBaseUrl": site.rpc_url.replace("durabletask", "durabletask-within")})
    )
    assert await within.start_new("greet", "own-work", "x") == "own-work"
    assert (await site.end_of("own-work")).output == "Hello x!"
    await site.client.raise_event("waits", "Approval", "yes")
    assert "yes" in (await site.end_of("waits")).output
    await site.client.signal_entity(df.EntityId("counter", "c"), "add", 2)

    site.engine.admission.remove(places[0])
    assert await site.client.start_new("greet", "refused", "x") == "refused"
    assert (await site.end_of("refused")).output == "Hello x!"
    assert site.engine.admission.load.refused_starts == 3
