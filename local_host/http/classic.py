"""`azure.functions.HttpRequest` in, `azure.functions.HttpResponse` out: whole bodies, as the worker's RPC carries them.

Multiple values of a header or query name are joined with commas, as the platform's host does before the worker sees
them. Streaming is `streaming.py`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from azure.functions.meta import Datum

from local_host.invocation import FunctionError, TriggerInput, converter_of
from local_host.specs import FunctionSpec, HttpTrigger

# A response sets its own framing; the rest describe one connection and must not be passed on (RFC 9110 §7.6.1).
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length"}
)


def classic_input(request: web.Request, body: bytes, route_values: Mapping[str, str]) -> TriggerInput:
    """The `http` datum of a request."""
    headers = _joined(request.headers.items(), lower=True)
    query = _joined(request.query.items(), lower=False)
    datum = Datum(
        {
            "method": Datum(request.method, "string"),
            "url": Datum(str(request.url), "string"),
            "headers": {name: Datum(value, "string") for name, value in headers.items()},
            "query": {name: Datum(value, "string") for name, value in query.items()},
            "params": {name: Datum(value, "string") for name, value in route_values.items()},
            "body": Datum(body, "bytes"),
        },
        "http",
    )
    return TriggerInput(datum, {})


def classic_response(spec: FunctionSpec, result: Any) -> web.Response:
    """The HTTP response for a function's return value.

    Raises FunctionError for values the platform refuses too (None, dict, bytes, …). A function without an HTTP
    output binding answers 204.
    """
    assert isinstance(spec.trigger, HttpTrigger)
    if not spec.trigger.returns_http:
        return web.Response(status=204)
    try:
        datum = converter_of("http").encode(result, expected_type=None)
        if datum.type == "string":
            return web.Response(text=datum.value)
        value = datum.value
        response = web.Response(status=int(value["status_code"].value), body=value["body"].value)
        _set_headers(response, value["headers"])
        for jar in value["cookies"] or ():
            for morsel in jar.values():
                response.headers.add("Set-Cookie", morsel.OutputString())
    except NotImplementedError as err:
        wrong = TypeError(f"an HTTP function must return HttpResponse or str, not {type(result).__name__}")
        raise FunctionError(spec.name, wrong) from err
    except Exception as err:
        raise FunctionError(spec.name, err) from err
    return response


def _set_headers(response: web.Response, headers: Mapping[str, Datum]) -> None:
    for name, datum in headers.items():
        if name.lower() in HOP_BY_HOP:
            continue
        if "\r" in datum.value or "\n" in datum.value or "\0" in datum.value:
            raise ValueError(f"response header {name!r} holds a line break")
        response.headers[name] = datum.value


def _joined(pairs: Iterable[tuple[str, str]], *, lower: bool) -> dict[str, str]:
    """Names are case-insensitive; the first spelling of a query name is kept."""
    spelling: dict[str, str] = {}
    values: dict[str, str] = {}
    for name, value in pairs:
        key = spelling.setdefault(name.lower(), name.lower() if lower else name)
        separator = "; " if key == "cookie" else ","
        values[key] = f"{values[key]}{separator}{value}" if key in values else value
    return values
