"""Service Bus triggers of every shape, an output binding, and timers. What happened is read back over HTTP."""

import json
from typing import List

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
log = []


@app.route(route="log", methods=["GET"])
def read_log(req: func.HttpRequest) -> str:
    return json.dumps(log)


@app.route(route="orders", methods=["POST"])
@app.service_bus_queue_output(arg_name="out", connection="SBCONN", queue_name="%ORDERS_QUEUE%")
def place_order(req: func.HttpRequest, out: func.Out[str]) -> str:
    out.set(req.get_body().decode())
    return "placed"


@app.service_bus_queue_trigger(arg_name="msg", connection="SBCONN", queue_name="%ORDERS_QUEUE%")
def on_order(msg: func.ServiceBusMessage) -> None:
    body = msg.get_body().decode()
    log.append({
        "on": "order", "body": body, "delivery": msg.delivery_count, "id": msg.message_id,
        "properties": msg.application_properties, "content_type": msg.content_type,
        "enqueued": msg.enqueued_time_utc.isoformat(), "sequence": msg.sequence_number,
        "ttl_s": msg.time_to_live.total_seconds() if msg.time_to_live else None,
    })
    if body == "poison":
        raise ValueError("cannot digest")


@app.service_bus_queue_trigger(arg_name="msgs", connection="SBCONN", queue_name="batches", cardinality="many")
def on_batch(msgs: List[func.ServiceBusMessage]) -> None:
    log.append({"on": "batch", "bodies": [m.get_body().decode() for m in msgs], "ids": [m.message_id for m in msgs]})


@app.service_bus_queue_trigger(arg_name="msg", connection="SBCONN", queue_name="sessions", is_sessions_enabled=True)
async def on_session(msg: func.ServiceBusMessage) -> None:
    log.append({"on": "session", "session": msg.session_id, "body": msg.get_body().decode()})


@app.service_bus_topic_trigger(arg_name="msg", connection="SBCONN", topic_name="news", subscription_name="paper")
def on_news(msg: str) -> None:
    log.append({"on": "paper", "body": msg})


@app.service_bus_topic_trigger(arg_name="msg", connection="SBCONN", topic_name="news", subscription_name="radio")
@app.service_bus_queue_output(arg_name="$return", connection="SBCONN", queue_name="batches")
def on_radio(msg: bytes) -> str:
    log.append({"on": "radio", "body": msg.decode()})
    return "from radio"


@app.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
def every_five_minutes(timer: func.TimerRequest) -> None:
    log.append({"on": "timer", "past_due": timer.past_due, "next": timer.schedule_status["Next"]})


@app.timer_trigger(arg_name="timer", schedule="01:00:00", run_on_startup=True, use_monitor=False)
def at_startup(timer: func.TimerRequest) -> None:
    log.append({"on": "startup", "past_due": timer.past_due})
