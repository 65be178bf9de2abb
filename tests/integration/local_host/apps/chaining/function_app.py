"""Function chaining: each activity's result is the next one's input."""

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="orchestrators/{functionName}")
@app.durable_client_input(client_name="client")
async def http_start(req: func.HttpRequest, client) -> func.HttpResponse:
    payload = req.get_json() if req.get_body() else None
    instance_id = await client.start_new(req.route_params["functionName"], None, payload)
    return client.create_check_status_response(req, instance_id)


@app.orchestration_trigger(context_name="context")
def greet_cities(context: df.DurableOrchestrationContext):
    greetings = []
    for city in context.get_input() or ["Tokyo", "Seattle", "London"]:
        greetings.append((yield context.call_activity("say_hello", city)))
        context.set_custom_status(f"greeted {city}")
    return greetings


@app.orchestration_trigger(context_name="context")
def pipeline(context: df.DurableOrchestrationContext):
    value = context.get_input()["value"]
    value = yield context.call_activity(double, value)
    value = yield context.call_activity("TripleByName", value)
    return (yield context.call_sub_orchestrator("finish", value))


@app.orchestration_trigger(context_name="context")
def finish(context: df.DurableOrchestrationContext):
    return {"value": context.get_input(), "child": True, "typed": (yield context.call_activity("say_hello", None))}
    yield


@app.orchestration_trigger(context_name="context")
def fails(context: df.DurableOrchestrationContext):
    try:
        yield context.call_activity("raise_error", "first")
    except Exception as err:
        context.set_custom_status(str(err).split("\n")[0].strip())
    yield context.call_activity("raise_error", "second")


@app.orchestration_trigger(context_name="context")
def retries(context: df.DurableOrchestrationContext):
    options = df.RetryOptions(first_retry_interval_in_milliseconds=10, max_number_of_attempts=3)
    return (yield context.call_activity_with_retry("flaky", options, context.instance_id))


@app.activity_trigger(input_name="city")
def say_hello(city: str) -> str:
    return f"Hello {city}!"


@app.activity_trigger(input_name="number")
async def double(number: int) -> int:
    return number * 2


@app.activity_trigger(input_name="number", activity="TripleByName")
def triple(number: int) -> int:
    return number * 3


@app.activity_trigger(input_name="text")
def raise_error(text: str) -> str:
    raise ValueError(f"refused {text}")


attempts: dict = {}


@app.activity_trigger(input_name="key")
def flaky(key: str) -> int:
    attempts[key] = attempts.get(key, 0) + 1
    if attempts[key] < 3:
        raise RuntimeError("not yet")
    return attempts[key]
