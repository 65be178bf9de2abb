"""The app under the platform's own worker engine: what Azure would index, and one invocation of each kind of function."""

import json
import sys
from pathlib import Path

import pytest
import pytest_asyncio

pytestmark = [
    pytest.mark.platform,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.version_info < (3, 13), reason="azure-functions-runtime needs Python 3.13"),
]

ROOT = Path(__file__).resolve().parents[2]
CLIENT = json.dumps(
    {
        "taskHubName": "LivoaTaskHub",
        "creationUrls": {"createNewInstancePostUri": "http://127.0.0.1:9/o"},
        "managementUrls": {"id": "INSTANCEID", "statusQueryGetUri": "http://127.0.0.1:9/instances/INSTANCEID"},
        # The discard port: whatever the app asks of the durable engine here fails, as it may in production.
        "rpcBaseUrl": "http://127.0.0.1:9/durabletask/",
    }
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tmp_path_factory):
    from tests.platform.worker import Worker

    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVOA_ENV", "local")
        patch.setenv("LIVOA_DATA", str(data))
        patch.setenv("LIVOA_HTTP_STREAMING", "off")
        patch.setenv("LIVOA_BUS_CONNECTION_FILE", str(data / "no-bus.connection"))
        patch.syspath_prepend(str(ROOT))
        patch.chdir(ROOT)
        loaded = await Worker.load(ROOT)
        loaded.data = data
        yield loaded


def _token(worker, *roles):
    from engine.adapters.memory import SystemClock
    from engine.identity import DevelopmentIssuer

    issuer = DevelopmentIssuer.open(worker.data, SystemClock(), environment="local")
    return issuer.mint("contoso", "ana", roles, audience="api://livoa")


async def _http(worker, name, method, url, **inputs):
    from tests.platform.worker import http_input

    kinds = {binding["type"]: binding["name"] for binding in worker.bindings(name)}
    given = {kinds["httpTrigger"]: ("http", http_input(method, url, **inputs))}
    if "durableClient" in kinds:
        given[kinds["durableClient"]] = ("string", CLIENT)
    done = await worker.invoke(name, given)
    assert done.ok, done.error
    body = done.value["body"].value
    return int(done.value["status_code"].value), json.loads(body) if body else None


def _by_route(worker, route, method):
    for name in worker.functions:
        for binding in worker.bindings(name):
            if binding["type"] == "httpTrigger" and binding["route"] == route and method in binding["methods"]:
                return name
    raise AssertionError(f"no function serves {method} {route}")


async def test_the_platform_indexes_every_kind_of_function(worker):
    kinds = {binding["type"] for name in worker.functions for binding in worker.bindings(name)}
    assert {
        "httpTrigger",
        "http",
        "durableClient",
        "orchestrationTrigger",
        "activityTrigger",
        "timerTrigger",
        "entityTrigger",
    } <= kinds


async def test_every_http_trigger_is_anonymous_to_the_platform_because_identity_is_the_token(worker):
    levels = {
        binding["authLevel"]
        for name in worker.functions
        for binding in worker.bindings(name)
        if binding["type"] == "httpTrigger"
    }
    assert levels == {"ANONYMOUS"}


async def test_durable_names_are_the_names_that_are_called(worker):
    from engine.domain import names

    registered = {
        binding.get("activity") or binding.get("orchestration") or binding.get("entityName")
        for name in worker.functions
        for binding in worker.bindings(name)
        if binding["type"] in ("activityTrigger", "orchestrationTrigger", "entityTrigger")
    }
    wanted = {names.RUN_ORCHESTRATOR, names.MAP_ORCHESTRATOR, names.PLAN_RUN, names.PERFORM_STEP, names.FINISH_RUN}
    assert wanted | {names.TENANT_QUOTA, names.CIRCUIT_BREAKER} <= registered


async def test_an_http_function_answers(worker):
    status, body = await _http(worker, _by_route(worker, "health/live", "GET"), "GET", "http://x/api/health/live")
    assert (status, body["status"]) == (200, "ok")


async def test_without_a_token_there_is_a_problem_with_a_code(worker):
    status, body = await _http(worker, _by_route(worker, "runs", "GET"), "GET", "http://x/api/runs")
    assert status == 401
    assert body["code"].startswith("auth.")


async def test_a_submission_is_accepted_even_while_the_durable_engine_is_away(worker):
    """The run is stored before it is started; the sweep starts it later."""
    headers = {"authorization": f"Bearer {_token(worker, 'Runs.Submit')}", "content-type": "application/json"}
    name = _by_route(worker, "runs", "POST")
    request = {"body": json.dumps({"intent": "what changed last quarter?"}).encode(), "headers": headers}
    status, body = await _http(worker, name, "POST", "http://x/api/runs", **request)
    assert (status, body["status"]) == (202, "accepted")


async def test_an_activity_returns_a_value_for_what_it_expects(worker):
    task = {"tenant_id": "contoso", "run_id": "run-absent", "step_id": "a", "attempt": 1}
    given = {"payload": ("json", json.dumps(task)), "client": ("string", CLIENT)}
    done = await worker.invoke("perform_step", given)
    assert done.ok, done.error
    assert json.loads(done.value) == {"status": "failed", "code": "run.not_found", "retryable": False}


async def test_the_orchestrator_schedules_planning_first(worker):
    at = "2026-01-01T00:00:00.000000Z"
    common = {"EventId": -1, "IsPlayed": False, "Timestamp": at}
    started = common | {"EventType": 0, "Name": "run_orchestrator", "Version": "", "Input": "null"}
    run = {"tenant_id": "contoso", "run_id": "run-1", "deadline_at": "2026-01-02T00:00:00.000000Z"}
    body = {
        "history": [common | {"EventType": 12}, started],
        "input": json.dumps(run),
        "instanceId": "run-1",
        "isReplaying": False,
        "parentInstanceId": None,
        "upperSchemaVersion": 1,
        "upperSchemaVersionNew": 2,
    }
    done = await worker.invoke("run_orchestrator", {"context": ("json", json.dumps(body))})
    assert done.ok, done.error
    state = json.loads(done.value)
    assert not state["isDone"]
    assert "plan_run" in json.dumps(state["actions"])


async def test_the_timer_function_runs(worker):
    name = next(n for n in worker.functions if any(b["type"] == "timerTrigger" for b in worker.bindings(n)))
    kinds = {binding["type"]: binding["name"] for binding in worker.bindings(name)}
    schedule = {"Schedule": {}, "ScheduleStatus": {"Last": "", "Next": "", "LastUpdated": ""}, "IsPastDue": False}
    inputs = {kinds["timerTrigger"]: ("json", json.dumps(schedule)), kinds["durableClient"]: ("string", CLIENT)}
    done = await worker.invoke(name, inputs)
    assert done.ok, done.error


async def test_a_message_reaches_its_function_with_the_lock_that_the_host_holds(worker):
    (trigger,) = [
        binding for binding in worker.bindings("receive_run_request") if binding["type"] == "serviceBusTrigger"
    ]
    assert (trigger["queueName"], trigger["connection"]) == ("run-requests", "LIVOA_BUS_CONNECTION")
    held = {"MessageId": ("string", "m-1"), "DeliveryCount": ("int", 1), "UserProperties": ("json", "{}")}
    held["LockToken"] = ("string", "0f8fad5b-d9cb-469f-a165-70867728950e")
    given = {"message": ("bytes", b"no envelope"), "client": ("string", CLIENT)}
    done = await worker.invoke("receive_run_request", given, held)
    # It is poison, and there is no bus to say so to: the function raises, so the host gives the message back.
    assert not done.ok
    assert (
        "bus.unavailable" in str(done.error)
        or "dead letter" in str(done.error)
        or "connection string" in str(done.error)
    )
