"""One HTTP function per method of the durable client, so that a test can call each of them."""

import json
from datetime import datetime, timedelta, timezone

import azure.durable_functions as df
import azure.functions as func
from azure.durable_functions.models.OrchestrationRuntimeStatus import OrchestrationRuntimeStatus as Status

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)


def _json(value, status=200):
    return func.HttpResponse(json.dumps(value, default=str), status_code=status, mimetype="application/json")


def _status(status):
    return status.to_json() if status else None


@app.route(route="call/{method}/{id?}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def call(req: func.HttpRequest, client, context: func.Context) -> func.HttpResponse:
    given = req.get_json() if req.get_body() else {}
    instance_id = req.route_params.get("id")
    try:
        return await METHODS[req.route_params["method"]](req, client, instance_id, given)
    except Exception as err:
        return _json({"error": str(err)}, 500)


async def start_new(req, client, instance_id, given):
    return _json(await client.start_new(given["name"], instance_id, given.get("input")))


async def get_status(req, client, instance_id, given):
    status = await client.get_status(instance_id, show_history=True, show_history_output=True, show_input=True)
    return _json({**(_status(status) or {}), "known": bool(status and status.instance_id)})


async def get_status_all(req, client, instance_id, given):
    return _json([_status(status) for status in await client.get_status_all()])


async def get_status_by(req, client, instance_id, given):
    now = datetime.now(timezone.utc)
    found = await client.get_status_by(now - timedelta(hours=1), now + timedelta(hours=1),
                                       [Status(name) for name in given["statuses"]])
    return _json([_status(status) for status in found])


async def raise_event(req, client, instance_id, given):
    return _json(await client.raise_event(instance_id, given["name"], given.get("data")))


async def terminate(req, client, instance_id, given):
    return _json(await client.terminate(instance_id, "no longer needed"))


async def suspend(req, client, instance_id, given):
    return _json(await client.suspend(instance_id, "wait a moment"))


async def resume(req, client, instance_id, given):
    return _json(await client.resume(instance_id, "go on"))


async def rewind(req, client, instance_id, given):
    return _json(await client.rewind(instance_id, "fixed"))


async def restart(req, client, instance_id, given):
    return _json(await client.restart(instance_id, restart_with_new_instance_id=given.get("new", True)))


async def purge(req, client, instance_id, given):
    result = await client.purge_instance_history(instance_id)
    return _json(result.instances_deleted)


async def purge_by(req, client, instance_id, given):
    now = datetime.now(timezone.utc)
    result = await client.purge_instance_history_by(now - timedelta(hours=1), now + timedelta(hours=1),
                                                    [Status(name) for name in given["statuses"]])
    return _json(result.instances_deleted)


async def signal_entity(req, client, instance_id, given):
    await client.signal_entity(df.EntityId("note", instance_id), "write", given["text"])
    return _json("signalled")


async def read_entity_state(req, client, instance_id, given):
    state = await client.read_entity_state(df.EntityId("note", instance_id))
    return _json({"exists": state.entity_exists, "state": state.entity_state})


async def wait_for_completion(req, client, instance_id, given):
    return await client.wait_for_completion_or_create_check_status_response(
        req, instance_id, timeout_in_milliseconds=given["timeout_ms"], retry_interval_in_milliseconds=20)


async def check_status(req, client, instance_id, given):
    return client.create_check_status_response(req, instance_id)


async def management_payload(req, client, instance_id, given):
    return _json(client.create_http_management_payload(instance_id))


METHODS = {name: value for name, value in globals().items() if getattr(value, "__code__", None) is not None
           and value.__code__.co_varnames[:4] == ("req", "client", "instance_id", "given")}

broken = {"yes": True}


@app.orchestration_trigger(context_name="context")
def echo(context: df.DurableOrchestrationContext):
    return {"echo": context.get_input()}
    yield


@app.orchestration_trigger(context_name="context")
def wait_for_go(context: df.DurableOrchestrationContext):
    context.set_custom_status({"waiting": True})
    return (yield context.wait_for_external_event("Go"))


@app.orchestration_trigger(context_name="context")
def needs_repair(context: df.DurableOrchestrationContext):
    first = yield context.call_activity("count_calls", "first")
    second = yield context.call_activity("breakable", None)
    return [first, second]


calls: dict = {}


@app.activity_trigger(input_name="name")
def count_calls(name: str) -> int:
    calls[name] = calls.get(name, 0) + 1
    return calls[name]


@app.activity_trigger(input_name="unused")
def breakable(unused) -> str:
    if broken["yes"]:
        raise ValueError("broken")
    return "repaired"


@app.route(route="repair", methods=["POST"])
def repair(req: func.HttpRequest) -> str:
    broken["yes"] = False
    return "ok"


@app.entity_trigger(context_name="context")
def note(context: df.DurableEntityContext):
    context.set_state(context.get_state(list) + [context.get_input()])
