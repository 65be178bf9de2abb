"""Capabilities of every kind that matters to data flow, and short ways to ask for facts."""

from __future__ import annotations

from typing import Any

from engine.domain.capability import Capability
from engine.domain.plan import Plan
from engine.domain.run import Document, PlanProvenance, RunContext, RunRequest
from engine.domain.tenant import Bounds, TenantConfig
from policy.facts import PlanFacts, StepFacts
from policy.flow import plan_facts, step_facts

CALLER = PlanProvenance(source="caller")
PLAYBOOK = PlanProvenance(source="playbook", playbook="tell")
MODEL = PlanProvenance(source="model", model="m")
POISONED = PlanProvenance(source="model", model="m", seen_integrity=0)


def manifest(
    name: str, parameters: dict[str, str], ceiling: tuple[int, int, bool] = (3, 0, False), **f: Any
) -> Capability:
    """A manifest; ``ceiling`` is (integrity, confidentiality, pii) of its output."""
    integrity, confidentiality, pii = ceiling
    properties = f.pop("properties", {})
    base = {
        "name": name,
        "version": "1.0.0",
        "title": name,
        "description": name,
        "delivery": "http",
        "endpoint": "test",
        "input_schema": {"type": "object", "properties": {key: {} for key in parameters} | properties},
        "parameters": parameters,
        "output_schema": {"type": "object"},
        "output_label": {"integrity": integrity, "confidentiality": confidentiality, "pii": pii},
        "side_effect": "read",
    }
    return Capability.model_validate(base | f)


CAPABILITIES = {
    one.name: one
    for one in (
        manifest("web.search", {"query": "selector"}, (0, 0, False)),
        manifest("llm.extract", {"text": "payload"}, (3, 0, False), side_effect="none"),
        manifest("crm.find", {"key": "selector"}, (2, 2, True)),
        manifest("sales.total", {"from": "control"}, (2, 1, False)),
        manifest("mail.send", {"to": "selector", "subject": "payload", "body": "payload"}, side_effect="external"),
        manifest("mail.retract", {"id": "selector", "to": "selector"}, side_effect="external"),
        manifest(
            "pay.refund",
            {"account": "selector", "amount": "selector", "speed": "selector"},
            side_effect="write",
            properties={"speed": {"enum": ["slow", "fast"]}},
            inverse={"capability": "pay.reverse"},
        ),
        manifest("pay.reverse", {"payment": "selector"}, side_effect="write"),
        manifest(
            "http.post",
            {"url": "selector", "mode": "control", "content": "payload"},
            side_effect="external",
            properties={"url": {"type": "string", "format": "uri"}},
            egress_hosts=("api.contoso.com",),
        ),
    )
}
TENANT = TenantConfig(
    tenant_id="contoso",
    display_name="Contoso",
    enabled_capabilities=tuple(CAPABILITIES),
    bounds=Bounds(max_fan_out=50),
    directories={"recipients": ("finance@contoso.com",), "accounts": ("DE-4711",)},
)
INTENT = 'Tell bob@x.com what the web says about "Q3 2026", and refund 1.2 million if needed.'


def asked(
    intent: str = INTENT, *, documents: tuple[str, ...] = (), goals: tuple[str, ...] = (), **values: Any
) -> RunRequest:
    """A request with context."""
    texts = tuple(Document(name=f"doc{i}", text=text) for i, text in enumerate(documents))
    return RunRequest(intent=intent, goals=goals, context=RunContext(values=values, documents=texts))


def plan_of(*steps: dict[str, Any]) -> Plan:
    """A plan of these steps."""
    return Plan.model_validate({"goal": "test", "steps": list(steps)})


def step(step_id: str, capability: str, **inputs: Any) -> dict[str, Any]:
    """A call; members of a step other than its inputs start with an underscore."""
    members = {key[1:]: inputs.pop(key) for key in list(inputs) if key.startswith("_")}
    return {"id": step_id, "capability": capability, "inputs": inputs} | members


def ref(text: str, **more: Any) -> dict[str, Any]:
    """A reference."""
    return {"$ref": text} | more


WEB = step("web", "web.search", query=ref("run#/intent"))
EXTRACT = step("extract", "llm.extract", text=ref("steps.web#/hits"))


def facts_of(
    *steps: dict[str, Any], by: PlanProvenance | None = CALLER, request: RunRequest | None = None
) -> PlanFacts:
    """Facts of a plan of these steps."""
    return plan_facts(plan_of(*steps), CAPABILITIES, request or asked(), by, TENANT)


def last(*steps: dict[str, Any], by: PlanProvenance | None = CALLER, request: RunRequest | None = None) -> StepFacts:
    """Facts of the last of these steps."""
    return facts_of(*steps, by=by, request=request).steps[steps[-1]["id"]]


def bound(
    *steps: dict[str, Any],
    inputs: dict[str, Any],
    by: PlanProvenance | None = CALLER,
    request: RunRequest | None = None,
    **more: Any,
) -> StepFacts:
    """Facts of the last of these steps with bound inputs."""
    plan = plan_of(*steps)
    return step_facts(plan, plan.steps[-1].id, None, inputs, CAPABILITIES, request or asked(), by, TENANT, **more)


def gate(facts: StepFacts) -> str:
    """What the two taint rules say of a side effect: the hard one about selectors, the curable one about control."""
    if facts.selectors.integrity < 2 or facts.untrusted_hosts:
        return "deny"
    return "escalate" if facts.control.integrity < 2 else "allow"


def argument(facts: StepFacts, name: str) -> Any:
    """The facts of one argument."""
    return next(one for one in facts.arguments if one.name == name)
