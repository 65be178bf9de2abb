"""The JSON Schemas that the API publishes, made from the models that do the work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import Field, TypeAdapter

from engine.domain.base import Frozen

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class ProblemError(Frozen):
    """One offence: its code, the JSON Pointer into the request, and words."""

    code: str
    pointer: str
    message: str


class Problem(Frozen):
    """A refusal (RFC 9457). ``type`` and ``code`` are stable; ``errors`` lists every offence when there are places to name."""

    type: str = Field(pattern="^urn:livoa:problem:")
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: tuple[ProblemError, ...] | None = None
    incident: str | None = None


def _published(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": _DIALECT, "$id": f"urn:livoa:schema:{name}", **schema}


def _plan() -> dict[str, Any]:
    from engine.plan import plan_schema

    return plan_schema()


def _run_request() -> dict[str, Any]:
    from engine.domain.run import RunRequest

    return _published("run-request", RunRequest.model_json_schema())


def _problem() -> dict[str, Any]:
    return _published("problem", Problem.model_json_schema())


def _events() -> dict[str, Any]:
    """One schema per event type, told apart by ``type``."""
    from engine.domain.events import EventType, data_model
    from triggers.views import EventView

    envelope = EventView.model_json_schema()
    definitions: dict[str, Any] = {}
    kinds = []
    for event_type in EventType:
        model = data_model(event_type)
        data = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= data.pop("$defs", {}) | {model.__name__: data}
        properties = envelope["properties"] | {
            "type": {"const": event_type.value},
            "data": {"$ref": f"#/$defs/{model.__name__}"},
        }
        entry = {key: envelope[key] for key in ("type", "required", "additionalProperties")}
        kinds.append({"title": event_type.value, **entry, "properties": properties})
    return _published("events", {"title": "RunEvent", "oneOf": kinds, "$defs": definitions})


def _execute() -> dict[str, Any]:
    """The agent contract: what ``POST /execute`` takes and answers."""
    from engine.domain.execute import EXECUTE_RESPONSE, ExecuteRequest

    parts = TypeAdapter.json_schemas(
        [
            ("request", "validation", TypeAdapter(ExecuteRequest)),
            ("response", "validation", EXECUTE_RESPONSE),
        ],
        ref_template="#/$defs/{model}",
    )
    references, shared = parts
    definitions = dict(shared.get("$defs", {}))
    definitions["Request"] = references["request", "validation"]
    definitions["Response"] = references["response", "validation"]
    either = [{"$ref": "#/$defs/Request"}, {"$ref": "#/$defs/Response"}]
    return _published("execute", {"title": "Execute", "anyOf": either, "$defs": definitions})


_MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "events": _events,
    "execute": _execute,
    "plan": _plan,
    "problem": _problem,
    "run-request": _run_request,
}

NAMES = tuple(_MAKERS)


@cache
def schema(name: str) -> dict[str, Any]:
    """One of ``NAMES``. Raises ``KeyError`` for any other. Not to be modified."""
    return _MAKERS[name]()
