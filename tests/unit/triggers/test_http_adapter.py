"""The two shells around the platform's types. The streaming one has a process of its own, because it is an app-wide switch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import azure.durable_functions as df
import azure.functions as func
import pytest

import triggers
from engine.domain.errors import LivoaError
from tests.unit.triggers.world import INTENT, FakeEngine, World
from triggers.endpoint import build_blueprint
from triggers.http_runs import ENDPOINTS

ROOT = Path(__file__).resolve().parents[3]


def functions_of(world: World, *, streaming: bool) -> dict[str, Any]:
    app = df.DFApp()
    for blueprint in triggers.build(lambda: world.deps, streaming=streaming):
        app.register_functions(blueprint)
    return {function.get_function_name(): function for function in app.get_functions()}


def azure_request(world: World, body: bytes, **route: str) -> func.HttpRequest:
    headers = {"Authorization": f"Bearer {world.token()}", "Content-Type": "application/json"}
    return func.HttpRequest(
        "post", "https://livoa.example/api/runs", headers=headers, params={}, route_params=route, body=body
    )


async def test_a_classic_request_goes_in_and_a_classic_response_comes_out(world: World) -> None:
    function = functions_of(world, streaming=False)["submit_run"].get_user_function().client_function
    response = await function(azure_request(world, json.dumps(INTENT).encode()), FakeEngine())

    assert isinstance(response, func.HttpResponse)
    assert response.status_code == 202
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["location"] == json.loads(response.get_body())["statusQueryGetUri"][21:-7]


async def test_a_classic_response_that_streams_is_a_mistake_of_ours(world: World) -> None:
    from triggers.endpoint import Endpoint
    from triggers.http_adapter import HttpResponse
    from triggers.run_access import READERS

    async def handler(_: object) -> HttpResponse:
        async def parts() -> Any:
            yield b"x"

        return HttpResponse(200, (), parts())

    app = df.DFApp()
    endpoint = Endpoint("list_runs", "GET", "runs", handler, READERS)
    app.register_functions(build_blueprint([endpoint], lambda: world.deps, streaming=False))
    with pytest.raises(TypeError, match="does not stream"):
        await app.get_functions()[0].get_user_function()(azure_request(world, b""))


def test_every_function_is_open_to_the_platform_because_identity_is_the_token(world: World) -> None:
    for name, function in functions_of(world, streaming=False).items():
        for binding in function.get_bindings():
            if binding.type == "httpTrigger":
                assert binding.auth_level == func.AuthLevel.ANONYMOUS, name


def test_only_what_wakes_orchestrations_or_looks_at_entities_has_a_durable_client(world: World) -> None:
    functions = functions_of(world, streaming=False)
    with_client = {n for n, f in functions.items() if any(b.type == "durableClient" for b in f.get_bindings())}
    assert with_client == {
        "submit_run", "cancel_run", "suspend_run", "resume_run", "terminate_run", "rerun_run", "answer_approval",
        "sweep_runs", "list_breakers", "get_quota", "erase_run", "run_retention", "retain_runs",
    }  # fmt: skip
    assert {endpoint.name for endpoint in ENDPOINTS} <= functions.keys()


async def test_the_timer_sweeps(world: World) -> None:
    world.engine.down = True
    run_id = await world.submitted()
    world.engine.down = False
    world.clock.pass_s(15)
    sweep = functions_of(world, streaming=False)["sweep_runs"].get_user_function().client_function

    await sweep(timer=None, client=world.engine)
    assert list(world.engine.instances) == [run_id]


async def test_the_trigger_of_results_is_there_where_a_bus_is(world: World) -> None:
    assert "bus_step_results" not in functions_of(world, streaming=False)
    (blueprint,) = triggers.build(lambda: world.deps, streaming=False, results_queue="answers")[-1:]
    app = df.DFApp()
    app.register_functions(blueprint)
    (function,) = app.get_functions()
    binding = function.get_trigger()
    assert (binding.type, binding.queue_name, binding.connection) == (
        "serviceBusTrigger", "answers", "LIVOA_BUS_CONNECTION"
    )  # fmt: skip
    message = SimpleNamespace(get_body=lambda: b"nonsense", lock_token="held-1")
    with pytest.raises(LivoaError, match="No bus is configured"):
        await function.get_user_function().client_function(message=message, client=world.engine)


STREAMING = """
import asyncio, json, sys
from starlette.responses import StreamingResponse
from azurefunctions.extensions.base import HttpV2FeatureChecker, RequestTrackerMeta
assert not HttpV2FeatureChecker.http_v2_enabled()
from tests.unit.triggers.world import World, INTENT, FakeEngine
from tests.unit.triggers.test_http_adapter import functions_of
assert not HttpV2FeatureChecker.http_v2_enabled()
from starlette.requests import Request

def request(method, headers, body, route):
    parts = [body[:5], body[5:]]
    async def receive():
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}
    scope = {"type": "http", "method": method, "path": "/api/runs", "scheme": "https", "server": ("livoa.example", 443),
             "query_string": b"after=0&after=1", "headers": [(k.encode(), v.encode()) for k, v in headers],
             "path_params": route}
    return Request(scope, receive)

async def main():
    world = World(streaming=True)
    functions = functions_of(world, streaming=True)
    assert HttpV2FeatureChecker.http_v2_enabled()
    for function in functions.values():
        annotation = getattr(function.get_user_function(), "__annotations__", {}).get("req")
        assert annotation is None or RequestTrackerMeta.check_type(annotation)
    auth = ("authorization", f"Bearer {world.token()}")
    headers = [auth, ("content-type", "application/json")]
    submit = functions["submit_run"].get_user_function().client_function
    response = await submit(request("POST", headers, json.dumps(INTENT).encode(), {}), world.engine)
    assert response.status_code == 202 and not isinstance(response, StreamingResponse)
    run_id = json.loads(response.body)["run_id"]
    events = functions["list_run_events"].get_user_function()
    refused = await events(request("GET", [auth], b"", {"run_id": run_id}))
    assert refused.status_code == 400, "a repeated query name is joined as the classic host joins it"
    twice = await events(request("GET", [auth, auth], b"", {"run_id": run_id}))
    assert (twice.status_code, json.loads(twice.body)["code"]) == (400, "auth.header_repeated")
    stream = await events(request("GET", [auth, ("last-event-id", "0")], b"", {"run_id": run_id}))
    assert isinstance(stream, StreamingResponse) and stream.headers["content-type"].startswith("text/event-stream")
    parts = stream.body_iterator
    assert await anext(parts) == b"retry: 1000\\n\\n"
    assert (await anext(parts)).startswith(b"id: 1\\n")
asyncio.run(main())
print("fine")
"""


def test_the_streaming_shell_takes_and_gives_streams_and_is_loaded_only_on_demand() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STREAMING], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "fine", done.stderr[-2_000:]
