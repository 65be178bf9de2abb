"""A durable blueprint: orchestrator, activity and its own starter."""

import azure.durable_functions as df
import azure.functions as func

bp = df.Blueprint()


class Order:
    """Travels through durable payloads by the SDK's custom-object convention."""

    def __init__(self, item: str, count: int):
        self.item, self.count = item, count

    @staticmethod
    def to_json(order: "Order") -> dict:
        return {"item": order.item, "count": order.count}

    @staticmethod
    def from_json(data: dict) -> "Order":
        return Order(data["item"], data["count"])


@bp.route(route="order/{item}", auth_level=func.AuthLevel.ANONYMOUS)
@bp.durable_client_input(client_name="client")
async def start_order(req: func.HttpRequest, client) -> func.HttpResponse:
    instance_id = await client.start_new("place_order", client_input=req.route_params["item"])
    return client.create_check_status_response(req, instance_id)


@bp.orchestration_trigger(context_name="context")
def place_order(context: df.DurableOrchestrationContext):
    order = yield context.call_activity("make_order", context.get_input())
    return (yield context.call_activity("describe_order", order))


@bp.activity_trigger(input_name="item")
def make_order(item: str) -> Order:
    return Order(item, 2)


@bp.activity_trigger(input_name="order")
def describe_order(order: Order) -> str:
    return f"{order.count} x {order.item} ({type(order).__name__})"
