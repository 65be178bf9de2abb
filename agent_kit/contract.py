"""The published contract: an OpenAPI 3.1 description of an agent and JSON Schemas, made from the models that do the work.

``python -m agent_kit.contract FOLDER`` writes them; the copies in ``docs/agent-contract`` are held to what this makes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from agent_kit.problems import PROBLEM_TYPE
from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.execute import (
    CONTRACT_VERSION,
    EXECUTE_RESPONSE,
    EXECUTE_UPDATE,
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    NDJSON,
    RESULT_UNKNOWN,
    ExecuteFailed,
    ExecuteRequest,
    ExecuteRunning,
    ExecuteSucceeded,
)
from engine.domain.grants import GRANT_HEADER, MAX_GRANT_LIFETIME_S, Grant
from engine.domain.outputs import StructuredOutput

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (ExecuteRequest, ExecuteSucceeded, ExecuteFailed, ExecuteRunning, Capability)

PROBLEM: JsonObject = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable; see docs/agents.md"},
        "detail": {"type": "string"},
        "retryable": {"type": "boolean", "description": "whether the very same call may succeed later"},
        "violations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["code", "pointer", "message"],
                "properties": {name: {"type": "string"} for name in ("code", "pointer", "message")},
            },
        },
    },
}


def documents() -> dict[str, JsonObject]:
    """Every published document by file name."""
    published: dict[str, JsonObject] = {"openapi.json": openapi()}
    kinds: dict[str, TypeAdapter[Any]] = {
        "execute-request": TypeAdapter(ExecuteRequest),
        "execute-response": EXECUTE_RESPONSE,
        "execute-update": EXECUTE_UPDATE,
        "grant": TypeAdapter(Grant),
        "manifest": TypeAdapter(Capability),
        "structured-output": TypeAdapter(StructuredOutput),
    }
    for name, adapter in kinds.items():
        schema = adapter.json_schema(mode="validation")
        published[f"{name}.schema.json"] = {"$schema": _DIALECT, "$id": f"urn:livoa:agent:{name}:1", **schema}
    return published


def text_of(document: JsonObject) -> str:
    """How a document is written."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def openapi() -> JsonObject:
    """What an agent serves."""
    _, schemas = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Livoa agent",
            "version": CONTRACT_VERSION,
            "description": (
                "What an agent serves, and the orchestrator calls. Bodies of requests have at most "
                f"{MAX_REQUEST_BYTES} bytes, answers {MAX_RESPONSE_BYTES}. Refusals are problem documents (RFC 9457)."
            ),
        },
        "paths": _paths(),
        "components": {
            "schemas": {**schemas["$defs"], "Problem": PROBLEM},
            "securitySchemes": {
                "who": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "App-only token of the orchestrator: audience of the agent, role Agent.Execute.",
                },
                "what": {
                    "type": "apiKey",
                    "in": "header",
                    "name": GRANT_HEADER,
                    "description": (
                        "Execution grant: JWS (ES256) over the claims of grant.schema.json, for this very call, valid for at "
                        f"most {MAX_GRANT_LIFETIME_S} seconds. Keys: the orchestrator's /api/grants/keys."
                    ),
                },
            },
        },
    }


def _paths() -> JsonObject:
    papers: list[JsonObject] = [{"who": [], "what": []}]
    update = {"oneOf": [_ref("ExecuteRunning"), _ref("ExecuteSucceeded"), _ref("ExecuteFailed")]}
    execution = {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "First 32 hex digits of SHA-256 over {tenant_id}/{idempotency_key}.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    }
    about = {
        "parameters": [execution],
        "security": papers,
        "responses": {"200": _json("What is known of it.", update), **_problems("401", "403", "404")},
    }
    return {
        "/execute": {"post": _execute(papers)},
        "/executions/{id}": {
            "get": {"summary": "What has become of an execution.", **about},
            "delete": {"summary": "Ask it to stop, and learn what has become of it.", **about},
        },
        "/capabilities": {
            "get": {
                "summary": "The manifests of what the agent can do.",
                "security": [{"who": []}],
                "responses": {"200": _json("Manifests.", _CAPABILITIES), **_problems("401", "403")},
            }
        },
        "/health/live": {"get": {"summary": "Is the process alive?", "responses": {"200": {"description": "Yes."}}}},
        "/health/ready": {
            "get": {
                "summary": "Does it take calls?",
                "responses": {"200": {"description": "Yes."}, "503": {"description": "No, or no longer."}},
            }
        },
    }


_CAPABILITIES: JsonObject = {
    "type": "object",
    "required": ["contract", "capabilities"],
    "properties": {
        "contract": {"type": "string", "pattern": r"^1\.\d+$"},
        "capabilities": {"type": "array", "items": {"$ref": _REF.format(model="Capability")}},
    },
}


def _execute(papers: list[JsonObject]) -> JsonObject:
    result = {"oneOf": [_ref("ExecuteSucceeded"), _ref("ExecuteFailed")]}
    done = _json("The result; again, when the same call has succeeded before (Idempotency-Replayed).", result)
    done["content"][NDJSON] = {
        "schema": {"type": "string", "description": "A line of ExecuteRunning for every progress, then the result."}
    }
    headers = (
        ("Idempotency-Key", True, "Equals idempotency_key of the body."),
        ("traceparent", False, "W3C trace context."),
        ("Prefer", False, "respond-async, wait=N: the caller comes back when it takes longer than N seconds."),
    )
    return {
        "summary": "Execute a capability once for each idempotency key.",
        "description": (
            "What was cut off after it may have had its effect (deadline, stop, shutdown, crash, an error nobody expected) "
            "is not begun again under its key, unless the manifest says idempotent or a side_effect of none or read. The key "
            f"then answers {RESULT_UNKNOWN}, or agent.cancelled where a caller stopped it: not retryable, and the same "
            "each time for a day."
        ),
        "security": papers,
        "parameters": [
            {"name": name, "in": "header", "required": required, "description": words, "schema": {"type": "string"}}
            for name, required, words in headers
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("ExecuteRequest")}}},
        "responses": {
            "200": done,
            "202": _json("It goes on; ask for the execution.", _ref("ExecuteRunning")),
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


_REFUSALS = {
    "400": "No acceptable JSON.",
    "401": "No valid token.",
    "403": "No valid grant, one of another call, or a caller without the role.",
    "404": "No such capability, or nothing known of such an execution.",
    "408": "The deadline has passed.",
    "409": "The same call is being executed.",
    "413": "Too large.",
    "415": "Another media type, or a content encoding.",
    "422": "Another form, inputs that do not fit the schema, or a key that belongs to another call.",
    "429": "Busy.",
    "503": "Not now.",
}


def _problems(*statuses: str) -> JsonObject:
    content = {PROBLEM_TYPE: {"schema": _ref("Problem")}}
    return {status: {"description": _REFUSALS[status], "content": content} for status in statuses}


def _json(description: str, schema: JsonObject) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(model: str) -> JsonObject:
    return {"$ref": _REF.format(model=model)}


def write(folder: Path) -> None:
    """Write every document into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (folder / name).write_text(text_of(document), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
