"""A minimal in-process host for ``azure_functions_runtime``, the v2 engine of the Python worker. A test tool.

The engine takes its protobuf module by injection, so plain namespaces stand in for messages it only fills and reads.
Invocations go through the engine's own protobuf-free entry.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class _Message(SimpleNamespace):
    """A message as the engine builds and reads it. Comparing and printing like a namespace is all it needs."""


class _StatusResult(_Message):
    Success, Failure = "Success", "Failure"


class _BindingInfo(_Message):
    out, inout, undefined = 1, 2, 0
    """Directions and the unset data type, as the protocol numbers them."""


class Protos:
    """Every message type the engine asks for, made when asked."""

    StatusResult = _StatusResult
    BindingInfo = _BindingInfo

    def __getattr__(self, name: str) -> type[_Message]:
        return type(name, (_Message,), {})


@dataclass(frozen=True, slots=True)
class Invocation:
    """What came of one invocation. ``value`` is the return datum's Python value."""

    ok: bool
    kind: str | None
    value: Any
    error: str | None


class Worker:
    """The platform's engine with one app loaded."""

    def __init__(self, metadata: list[Any]) -> None:
        self.functions: dict[str, Any] = {entry.name: entry for entry in metadata}

    @classmethod
    async def load(cls, app_dir: Path) -> Worker:
        """Index the app as the platform does at start. Raises when the platform would refuse it."""
        from azure_functions_runtime.handle_event import functions_metadata_request, worker_init_request

        os.chdir(app_dir)
        request = SimpleNamespace(
            request=SimpleNamespace(
                worker_init_request=SimpleNamespace(capabilities={}, function_app_directory=str(app_dir))
            ),
            properties={"host": "127.0.0.1", "protos": Protos()},
        )
        started = await worker_init_request(request)
        if started.result.status != _StatusResult.Success:
            raise RuntimeError(f"the engine refused the app: {started.result.exception}")
        answer = await functions_metadata_request(request)
        return cls(answer.function_metadata_results)

    def bindings(self, name: str) -> list[dict[str, Any]]:
        """The raw bindings the engine would tell the host of."""
        return [json.loads(text) for text in self.functions[name].raw_bindings]

    async def invoke(self, name: str, inputs: dict[str, Any], metadata: dict[str, Any] | None = None) -> Invocation:
        """Invoke by function name. Inputs are (type, value) pairs of the engine's datum."""
        from azure_functions_runtime.bindings.datumdef import Datum
        from azure_functions_runtime.native_invocation import invocation_request_native

        ok, datum, _, error, _ = await invocation_request_native(
            str(uuid.uuid4()),
            self.functions[name].function_id,
            [(key, Datum(type=kind, value=value)) for key, (kind, value) in inputs.items()],
            {key: Datum(type=kind, value=value) for key, (kind, value) in (metadata or {}).items()},
        )
        return Invocation(ok, datum.type if datum else None, datum.value if datum else None, error)


def http_input(
    method: str, url: str, *, body: bytes = b"", headers: dict[str, str] | None = None, route: Any = None
) -> Any:
    """An ``http`` datum value as the host sends it."""
    from azure_functions_runtime.bindings.datumdef import Datum

    def texts(values: dict[str, str]) -> dict[str, Any]:
        return {key: Datum(type="string", value=value) for key, value in values.items()}

    return {
        "method": Datum(type="string", value=method),
        "url": Datum(type="string", value=url),
        "headers": texts(headers or {}),
        "query": {},
        "params": texts(route or {}),
        "body": Datum(type="bytes", value=body),
    }
