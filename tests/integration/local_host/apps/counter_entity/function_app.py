"""Counter entity: signalled and read by clients, called by an orchestrator."""

import json

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.entity_trigger(context_name="context")
def Counter(context: df.DurableEntityContext):
    value = context.get_state(lambda: 0)
    match context.operation_name:
        case "add":
            value += context.get_input()
            context.set_result(value)
        case "reset":
            value = 0
        case "get":
            context.set_result(value)
        case "delete":
            context.destruct_on_exit()
            return
        case other:
            raise ValueError(f"no operation {other}")
    context.set_state(value)


@app.route(route="counter/{key}", methods=["GET", "POST", "DELETE"])
@app.durable_client_input(client_name="client")
async def counter(req: func.HttpRequest, client) -> func.HttpResponse:
    entity = df.EntityId("Counter", req.route_params["key"])
    if req.method == "GET":
        state = await client.read_entity_state(entity)
        return func.HttpResponse(json.dumps({"exists": state.entity_exists, "state": state.entity_state}))
    operation, value = ("delete", None) if req.method == "DELETE" else ("add", int(req.params["value"]))
    await client.signal_entity(entity, operation, value)
    return func.HttpResponse(status_code=202)


@app.route(route="tally/{key}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start_tally(req: func.HttpRequest, client) -> func.HttpResponse:
    instance_id = await client.start_new("tally", client_input=req.route_params["key"])
    return client.create_check_status_response(req, instance_id)


@app.orchestration_trigger(context_name="context")
def tally(context: df.DurableOrchestrationContext):
    entity = df.EntityId("Counter", context.get_input())
    before = yield context.call_entity(entity, "get")
    context.signal_entity(entity, "add", 5)
    after = yield context.call_entity(entity, "add", 2)
    try:
        yield context.call_entity(entity, "explode")
        refused = None
    except Exception as err:
        refused = str(err)
    return {"before": before, "after": after, "refused": refused}
