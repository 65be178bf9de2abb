"""Every kind of HTTP route and answer the host must serve."""

import asyncio
import json
import os
import time

import azure.functions as func

from helper_words import GREETING

print("printed while loading")
app = func.FunctionApp()
ANON = func.AuthLevel.ANONYMOUS


def _echo(req: func.HttpRequest, name: str) -> func.HttpResponse:
    body = req.get_body()
    seen = {
        "function": name,
        "method": req.method,
        "url": req.url,
        "route": dict(req.route_params),
        "query": dict(req.params),
        "headers": dict(req.headers),
        "size": len(body),
        "body": body[:200].decode("utf-8", "replace"),
    }
    return func.HttpResponse(json.dumps(seen), mimetype="application/json")


@app.route(route="echo/{*rest}", auth_level=ANON)
def echo(req: func.HttpRequest) -> func.HttpResponse:
    return _echo(req, "echo")


@app.route(route="items/{id:int}", methods=["GET"], auth_level=ANON)
def item_by_number(req: func.HttpRequest) -> func.HttpResponse:
    return _echo(req, "item_by_number")


@app.route(route="items/{id:guid}", methods=["GET"], auth_level=ANON)
def item_by_guid(req: func.HttpRequest) -> func.HttpResponse:
    return _echo(req, "item_by_guid")


@app.route(route="items/{name}", methods=["GET"], auth_level=ANON)
def item_by_name(req: func.HttpRequest) -> func.HttpResponse:
    return _echo(req, "item_by_name")


@app.route(route="items/newest", methods=["GET"], auth_level=ANON)
def item_newest(req: func.HttpRequest) -> func.HttpResponse:
    return _echo(req, "item_newest")


@app.route(route="items", methods=["POST"], auth_level=ANON)
def item_create(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.get_body(), status_code=201, headers={"Location": "/api/items/1"})


@app.route(route="page/{number?}", auth_level=ANON)
def page(req: func.HttpRequest) -> func.HttpResponse:
    return _echo(req, "page")


@app.route(auth_level=ANON)
def named_after_function(req: func.HttpRequest) -> str:
    return GREETING


@app.route(route="locked")
def locked(req: func.HttpRequest) -> str:
    return "open"


@app.route(route="admin-only", auth_level=func.AuthLevel.ADMIN)
def admin_only(req: func.HttpRequest) -> str:
    return "open"


@app.route(route="boom", auth_level=ANON)
def boom(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("secret detail")


@app.route(route="exits", auth_level=ANON)
async def exits(req: func.HttpRequest) -> func.HttpResponse:
    raise SystemExit(3)


@app.route(route="exits_in_thread", auth_level=ANON)
def exits_in_thread(req: func.HttpRequest) -> func.HttpResponse:
    raise SystemExit(3)


@app.route(route="cancels", auth_level=ANON)
async def cancels(req: func.HttpRequest) -> func.HttpResponse:
    raise asyncio.CancelledError


@app.route(route="wrong", auth_level=ANON)
def wrong(req: func.HttpRequest):
    return {"not": "allowed"}


@app.route(route="cookies", auth_level=ANON)
def cookies(req: func.HttpRequest) -> func.HttpResponse:
    response = func.HttpResponse("ok", headers={"X-Plain": "1", "Connection": "close"})
    response.headers.add("Set-Cookie", "a=1; Path=/; HttpOnly")
    response.headers.add("Set-Cookie", "b=2; SameSite=Lax")
    return response


@app.route(route="split", auth_level=ANON)
def split(req: func.HttpRequest) -> func.HttpResponse:
    response = func.HttpResponse("ok")
    response.headers["X-Bad"] = req.params["value"]
    return response


@app.route(route="context", auth_level=ANON)
async def context_facts(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    await asyncio.sleep(0)
    return func.HttpResponse(json.dumps({
        "name": context.function_name,
        "directory": context.function_directory,
        "id": context.invocation_id,
        "traceparent": context.trace_context.trace_parent,
        "old_alias": context.trace_context.Traceparent,
        "tracestate": context.trace_context.trace_state,
        "setting": os.environ.get("ZOO_SETTING"),
        "overridden": os.environ.get("ZOO_OVERRIDDEN"),
    }))


@app.route(route="slow", auth_level=ANON)
def slow(req: func.HttpRequest) -> str:
    time.sleep(float(req.params["seconds"]))
    return "slept"


@app.route(route="form", methods=["POST"], auth_level=ANON)
def form(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(dict(req.form)))
