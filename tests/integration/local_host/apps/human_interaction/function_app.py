"""Human interaction: whichever comes first, an approval event or a three-day timer."""

from datetime import timedelta

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="requests/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def submit(req: func.HttpRequest, client) -> func.HttpResponse:
    instance_id = await client.start_new("approval", req.route_params["id"], {"amount": 10})
    return client.create_check_status_response(req, instance_id)


@app.route(route="requests/{id}/answer", methods=["POST"])
@app.durable_client_input(client_name="client")
async def answer(req: func.HttpRequest, client) -> func.HttpResponse:
    await client.raise_event(req.route_params["id"], "Answer", req.get_json())
    return func.HttpResponse(status_code=202)


@app.orchestration_trigger(context_name="context")
def approval(context: df.DurableOrchestrationContext):
    deadline = context.current_utc_datetime + timedelta(days=3)
    timer = context.create_timer(deadline)
    answered = context.wait_for_external_event("Answer")
    context.set_custom_status("waiting")
    winner = yield context.task_any([answered, timer])
    if winner == answered:
        timer.cancel()
        return {"answer": answered.result, "charged": (yield context.call_activity("charge", context.get_input()))}
    return {"escalated": (yield context.call_activity("escalate", context.instance_id))}


@app.activity_trigger(input_name="request")
def charge(request: dict) -> int:
    return request["amount"]


@app.activity_trigger(input_name="instance")
def escalate(instance: str) -> str:
    return f"manager of {instance}"
