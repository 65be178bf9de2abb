"""Monitor: poll a job every minute until it is ready or the monitor expires; an eternal variant rolls over."""

from datetime import timedelta

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
polls: dict = {}


@app.route(route="monitor/{orchestrator}/{job}/{ready_after:int}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start_monitor(req: func.HttpRequest, client) -> func.HttpResponse:
    job = {"job": req.route_params["job"], "ready_after": int(req.route_params["ready_after"])}
    instance_id = await client.start_new(req.route_params["orchestrator"], None, job)
    return client.create_check_status_response(req, instance_id)


@app.orchestration_trigger(context_name="context")
def watch_job(context: df.DurableOrchestrationContext):
    job = context.get_input()
    expiry = context.current_utc_datetime + timedelta(minutes=10)
    while context.current_utc_datetime < expiry:
        state = yield context.call_activity("poll_job", job)
        context.set_custom_status({"polls": state["polls"]})
        if state["ready"]:
            return {"ready": True, "polls": state["polls"]}
        yield context.create_timer(context.current_utc_datetime + timedelta(minutes=1))
    return {"ready": False}


@app.orchestration_trigger(context_name="context")
def watch_job_eternally(context: df.DurableOrchestrationContext):
    job = context.get_input()
    state = yield context.call_activity("poll_job", job)
    if state["ready"]:
        return {"ready": True, "generations": job.get("generation", 0)}
    yield context.create_timer(context.current_utc_datetime + timedelta(minutes=1))
    context.continue_as_new({**job, "generation": job.get("generation", 0) + 1})


@app.activity_trigger(input_name="job")
def poll_job(job: dict) -> dict:
    polls[job["job"]] = polls.get(job["job"], 0) + 1
    return {"ready": polls[job["job"]] > job["ready_after"], "polls": polls[job["job"]]}
