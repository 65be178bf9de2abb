"""Our own request and response, and the two shells that put them around the platform's types.

The Python worker has two ways of serving HTTP: whole bodies with ``azure.functions`` types, or streams with the FastAPI
extension. Importing the extension switches every HTTP trigger of the app, so the choice is made once, by a flag, and nothing
else in the project knows either kind of type (ADR 0003).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from engine.domain.errors import LivoaError

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

CLIENT_PARAMETER = "client"
JSON = "application/json"


class DurableClient(Protocol):
    """The part of ``DurableOrchestrationClient`` that triggers use."""

    async def start_new(
        self, orchestration_function_name: str, instance_id: str | None = None, client_input: Any | None = None
    ) -> str:
        """Start an instance. One that runs under this id already is refused by the engine; a finished one is replaced."""
        ...

    async def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> None:
        """Send an event. Raises when the instance does not exist or is over."""
        ...

    async def get_status(self, instance_id: str) -> Any:
        """The status; its ``instance_id`` is None when there is no such instance."""
        ...

    async def get_status_by(self, *, instance_id_prefix: str) -> Any:
        """The statuses of all instances whose ids begin with that."""
        ...

    async def terminate(self, instance_id: str, reason: str) -> None:
        """Stop an instance hard."""
        ...

    async def purge_instance_history(self, instance_id: str) -> Any:
        """Forget an instance that is over. One that is not there, or not over, is left alone."""
        ...


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request. Header names are in lower case; a name may occur more than once. ``query`` joins repeated names with commas."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    route: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""

    def header(self, name: str) -> str | None:
        """The value of a header that must not be repeated; several are joined with commas, as a proxy may do."""
        values = [value for key, value in self.headers if key == name]
        return ",".join(values) if values else None

    @property
    def path(self) -> str:
        """The path without the query."""
        from urllib.parse import urlsplit

        return urlsplit(self.url).path

    @property
    def origin(self) -> str:
        """Scheme and authority as the caller used them; empty when the URL has none."""
        from urllib.parse import urlsplit

        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response. An iterator as body is possible only where responses stream."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | AsyncIterator[bytes] = b""

    def with_headers(self, more: Iterable[tuple[str, str]]) -> HttpResponse:
        """The same response with further headers."""
        return HttpResponse(self.status, (*self.headers, *more), self.body)


def json_response(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> HttpResponse:
    """A JSON response; ``value`` is made of plain JSON types."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return HttpResponse(status, (("content-type", JSON), *headers), body)


async def read_body(request: HttpRequest, max_bytes: int) -> bytes:
    """The whole body. Raises ``LivoaError("http.body_too_large", status=413)`` without reading further than the limit."""
    declared = request.header("content-length")
    if declared is not None and declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    if isinstance(request.body, bytes):
        if len(request.body) > max_bytes:
            raise _too_large(max_bytes)
        return request.body
    data = bytearray()
    async for chunk in request.body:
        data += chunk
        if len(data) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(data)


def _too_large(max_bytes: int) -> LivoaError:
    return LivoaError("http.body_too_large", f"The body is larger than {max_bytes} bytes.", status=413)


Serve = Callable[[HttpRequest, DurableClient | None], Awaitable[HttpResponse]]
"""What a shell calls: everything after the platform's types."""


def register(
    blueprint: Blueprint, *, name: str, method: str, path: str, serve: Serve, needs_client: bool, streaming: bool
) -> None:
    """Add one HTTP function. Always anonymous for the platform: identity is the token's business, not a function key's."""
    from azure.functions import AuthLevel

    shell = _streaming_shell(serve) if streaming else _classic_shell(serve)
    body: Any = _with_client(shell) if needs_client else _without_client(shell)
    body.__annotations__ = shell.types | ({CLIENT_PARAMETER: str} if needs_client else {})
    function = blueprint.route(route=path, methods=[method], auth_level=AuthLevel.ANONYMOUS)(body)
    if needs_client:
        function = blueprint.durable_client_input(client_name=CLIENT_PARAMETER)(function)
    blueprint.function_name(name)(function)


@dataclass(frozen=True, slots=True)
class _Shell:
    """One way of serving. ``types`` are the annotations that the worker looks at to tell the two ways apart."""

    types: dict[str, Any]
    call: Callable[[Any, DurableClient | None], Awaitable[Any]]


# The worker binds arguments by name and refuses functions with more or other parameters than bindings.
def _with_client(shell: _Shell) -> Callable[..., Awaitable[Any]]:
    async def http_function(req: Any, client: Any) -> Any:
        return await shell.call(req, client)

    return http_function


def _without_client(shell: _Shell) -> Callable[..., Awaitable[Any]]:
    async def http_function(req: Any) -> Any:
        return await shell.call(req, None)

    return http_function


def _classic_shell(serve: Serve) -> _Shell:
    import azure.functions as func

    async def call(req: func.HttpRequest, client: DurableClient | None) -> func.HttpResponse:
        response = await serve(_from_classic(req), client)
        if not isinstance(response.body, bytes):
            raise TypeError("this app does not stream responses")
        # As a header: given as mimetype, a charset is added to every text type, also to one that has its own.
        return func.HttpResponse(response.body, status_code=response.status, headers=dict(response.headers))

    return _Shell({"req": func.HttpRequest, "return": func.HttpResponse}, call)


def _from_classic(req: Any) -> HttpRequest:
    return HttpRequest(
        method=req.method,
        url=req.url,
        headers=tuple((name.lower(), value) for name, value in req.headers.items()),
        query=dict(req.params),
        route=dict(req.route_params),
        body=req.get_body(),
    )


def _streaming_shell(serve: Serve) -> _Shell:
    from azurefunctions.extensions.http.fastapi import Request, Response, StreamingResponse

    async def call(req: Any, client: DurableClient | None) -> Any:
        response = await serve(_from_streaming(req), client)
        headers = dict(response.headers)
        kind = Response if isinstance(response.body, bytes) else StreamingResponse
        return kind(response.body, status_code=response.status, headers=headers)

    return _Shell({"req": Request, "return": Response}, call)


def _from_streaming(req: Any) -> HttpRequest:
    query: dict[str, str] = {}
    for name, value in req.query_params.multi_items():
        query[name] = f"{query[name]},{value}" if name in query else value
    return HttpRequest(
        method=req.method,
        url=str(req.url),
        headers=tuple((name.lower(), value) for name, value in req.headers.items()),
        query=query,
        route=dict(req.path_params),
        body=req.stream(),
    )
