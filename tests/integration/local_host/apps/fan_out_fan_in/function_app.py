"""Fan-out/fan-in: many activities at once, and their results in the order in which they were asked for."""

import threading

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
_lock = threading.Lock()
_running = 0
_most = 0


@app.route(route="sum/{count:int}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start_sum(req: func.HttpRequest, client) -> func.HttpResponse:
    instance_id = await client.start_new("sum_of_squares", client_input=int(req.route_params["count"]))
    return client.create_check_status_response(req, instance_id)


@app.orchestration_trigger(context_name="context")
def sum_of_squares(context: df.DurableOrchestrationContext):
    numbers = yield context.call_activity("list_numbers", context.get_input())
    squares = yield context.task_all([context.call_activity("square", number) for number in numbers])
    return {"sum": sum(squares), "squares": squares, "most_at_once": (yield context.call_activity("most_at_once", None))}


@app.activity_trigger(input_name="count")
def list_numbers(count: int) -> list:
    return list(range(count))


@app.activity_trigger(input_name="number")
def square(number: int) -> int:
    global _running, _most
    with _lock:
        _running += 1
        _most = max(_most, _running)
    threading.Event().wait(0.02)
    with _lock:
        _running -= 1
    return number * number


@app.activity_trigger(input_name="unused")
def most_at_once(unused) -> int:
    return _most
