"""A plain blueprint beside the durable one."""

import azure.functions as func

plain = func.Blueprint()


@plain.route(route="version", auth_level=func.AuthLevel.ANONYMOUS)
def version(req: func.HttpRequest) -> str:
    return "1"
