"""An app whose activities are held until they are let go, with every way in that starts something."""

import asyncio

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
gate = asyncio.Event()


@app.route(route="start/{name}/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client) -> func.HttpResponse:
    try:
        return func.HttpResponse(await client.start_new(req.route_params["name"], req.route_params["id"]))
    except Exception as err:
        return func.HttpResponse(str(err), status_code=503)


@app.route(route="go/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def go(req: func.HttpRequest, client) -> func.HttpResponse:
    await client.raise_event(req.route_params["id"], "go", "now")
    return func.HttpResponse("told")


@app.route(route="release", methods=["POST"])
async def release(req: func.HttpRequest) -> func.HttpResponse:
    gate.set()
    return func.HttpResponse("released")


@app.service_bus_queue_trigger(arg_name="message", queue_name="requests", connection="SBCONN")
@app.durable_client_input(client_name="client")
async def on_request(message: func.ServiceBusMessage, client) -> None:
    await client.start_new("leaf", message.get_body().decode())


@app.orchestration_trigger(context_name="context")
def holds(context: df.DurableOrchestrationContext):
    yield context.task_all([context.call_activity("held", n) for n in range(3)])


@app.orchestration_trigger(context_name="context")
def waits(context: df.DurableOrchestrationContext):
    yield context.wait_for_external_event("go")
    yield context.call_activity("start_leaf", "started-within")


@app.orchestration_trigger(context_name="context")
def leaf(context: df.DurableOrchestrationContext):
    return "leaf"
    yield


@app.activity_trigger(input_name="number")
async def held(number: int) -> int:
    await gate.wait()
    return number


@app.activity_trigger(input_name="name")
@app.durable_client_input(client_name="client")
async def start_leaf(name: str, client) -> str:
    return await client.start_new("leaf", name)
