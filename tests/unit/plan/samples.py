"""A small catalogue and builders shared by the tests of the plan language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engine.domain.capability import Capability
from engine.domain.playbook import Playbook
from engine.domain.tenant import Bounds, TenantConfig


class SampleCatalog:
    """A catalogue of the given capabilities."""

    version = "0" * 64

    def __init__(self, capabilities: Iterable[Capability]) -> None:
        self.capabilities: Mapping[str, Capability] = {each.name: each for each in capabilities}
        self.playbooks: Mapping[str, Playbook] = {}


def capability(name: str, **fields: Any) -> Capability:
    """A manifest with harmless defaults."""
    return Capability(
        **{
            "name": name,
            "version": "1.0.0",
            "title": name,
            "description": name,
            "delivery": "http",
            "endpoint": "agent",
            "side_effect": "read",
            "input_schema": {"type": "object"},
            "output_schema": {},
            **fields,
        }
    )


def closed(properties: dict[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    """An object schema without further properties."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


ROWS = {"type": "array", "items": closed({"channel": {"type": "string"}, "spend": {"type": "number"}}, ["channel"])}
CHANNELS = {"type": "array", "items": closed({"name": {"type": "string"}, "roi": {"type": "number"}}, ["name"])}
CATALOG = SampleCatalog(
    [
        capability(
            "data.query",
            input_schema=closed(
                {"job": {"type": "string"}, "from": {"type": "string"}, "limit": {"type": "integer"}}, ["job"]
            ),
            output_schema=closed({"rows": ROWS, "count": {"type": "integer"}}, ["rows"]),
        ),
        capability(
            "mmm.fit",
            input_schema=closed({"rows": ROWS, "weight": {"type": "number", "minimum": 0}}, ["rows"]),
            output_schema=closed(
                {
                    "channels": CHANNELS,
                    "roi_change": {"type": "number"},
                    "summary": {"type": "string"},
                    "note": {"type": ["string", "null"]},
                },
                ["channels", "roi_change", "summary"],
            ),
            timeout_s=900,
            sla="p50 40s",
            cost={"per_call_micro_usd": 1_000},
        ),
        capability(
            "rag.search",
            input_schema=closed({"query": {"type": "string"}, "mode": {"enum": ["fast", "deep"]}}, ["query"]),
            output_schema=closed({"hits": {"type": "array", "items": {"type": "string"}}}, ["hits"]),
            cost={"per_call_micro_usd": 10},
        ),
        capability(
            "email.send",
            input_schema=closed({"to": {"type": "string"}, "body": {"type": "string"}}, ["to", "body"]),
            output_schema=closed({"id": {"type": "string"}}, ["id"]),
            side_effect="external",
            compensation_required=True,
        ),
        capability(
            "ads.pause",
            side_effect="write",
            compensation_required=True,
            inverse={"capability": "ads.resume"},
            idempotent=True,
        ),
        capability("ads.resume", side_effect="write", idempotent=True),
        capability("open.any"),
        capability("llm.write", delivery="llm"),
        capability("bus.long", delivery="service_bus"),
        capability("secret.tool"),
    ]
)


def tenant_for(catalog: SampleCatalog, *, bounds: Bounds | None = None, without: Iterable[str] = ()) -> TenantConfig:
    """A tenant that may use the whole catalogue but ``without``."""
    return TenantConfig(
        tenant_id="contoso",
        display_name="Contoso",
        enabled_capabilities=tuple(name for name in catalog.capabilities if name not in set(without)),
        bounds=bounds or Bounds(),
    )


TENANT = tenant_for(CATALOG, without=["secret.tool"])


def step(step_id: str = "a", capability_name: str = "open.any", **members: Any) -> dict[str, Any]:
    """A step that calls a capability."""
    return {"id": step_id, "capability": capability_name, **members}


def plan(*steps: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A plan of these steps."""
    return {"goal": "find out", "steps": list(steps), **members}


def ref(target: str, **members: Any) -> dict[str, Any]:
    """A reference."""
    return {"$ref": target, **members}
