"""From requests and facts to Cedar: entities, contexts, and what of the inputs is known.

Translation only. What a value means was decided when its facts were computed; what follows from it is for the policies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.policy import Cures, PlanPolicyRequest, StepPolicyRequest
from engine.domain.principal import Principal
from engine.domain.run import PlanProvenance
from engine.domain.tenant import TenantConfig
from policy.book import Words, agent_id
from policy.cedar import CedarRequest, Entities, Uid
from policy.facts import ArgumentFacts, Label, PlanFacts, StepFacts
from policy.flow.hosts import entry_of
from policy.schema import ACTION_TYPE, AGENT, PLAN, ROLE, SUBMIT, TENANT, USER, input_value


class NotSayableError(ValueError):
    """A bound value has no counterpart in the policy language. ``pointer`` is its place in the inputs."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Ask:
    """What all questions of one request share."""

    principal: Principal
    tenant: TenantConfig
    run_id: str
    provenance: PlanProvenance | None

    @classmethod
    def of(cls, request: PlanPolicyRequest | StepPolicyRequest) -> Ask:
        """The common part of a request."""
        return cls(request.principal, request.tenant, request.run_id, request.provenance)

    @property
    def user(self) -> Uid:
        """The caller."""
        return Uid(USER, self.principal.subject)

    @property
    def home(self) -> Uid:
        """The tenant whose data it is."""
        return Uid(TENANT, self.tenant.tenant_id)

    @property
    def plan(self) -> Uid:
        """The plan of the run."""
        return Uid(PLAN, self.run_id)

    @property
    def writer(self) -> str:
        """Who wrote the plan: caller, playbook, model, or unknown."""
        return self.provenance.source if self.provenance is not None else "unknown"

    def common(self, cures: Cures) -> JsonObject:
        """The part of the context that every action has."""
        redacted = sorted(cures.redacted)
        return {
            "tenant": _ref(self.home),
            "cures": {"approved": cures.approved, "approverDiffers": cures.approver_differs, "redacted": redacted},
        }


def entities_of(ask: Ask, capabilities: Iterable[Capability], words: Words) -> Entities:
    """The caller, the tenant, the plan and the agents of these capabilities. Raises ``CedarError``."""
    roles = sorted(role.value for role in ask.principal.roles)
    own = {"type": TENANT, "id": ask.principal.tenant_id}
    found: list[JsonObject] = [
        {
            "uid": ask.user.wire(),
            "attrs": {"tenant": {"__entity": own}, "kind": ask.principal.kind, "app": ask.principal.client_app},
            "parents": [own, *({"type": ROLE, "id": role} for role in roles)],
        },
        {"uid": ask.home.wire(), "attrs": _tenant(ask.tenant), "parents": [], "tags": _tags(ask.tenant)},
        {"uid": ask.plan.wire(), "attrs": _written(ask), "parents": [ask.home.wire()]},
        *({"uid": {"type": ROLE, "id": role}, "attrs": {}, "parents": []} for role in roles),
    ]
    agents = {agent_id(one): one for one in capabilities}
    for name, one in sorted(agents.items()):
        attrs = {"name": one.endpoint, "region": one.region}
        found.append({"uid": {"type": AGENT, "id": name}, "attrs": attrs, "parents": []})
    return Entities(found, words.schema)


def submit_question(ask: Ask, facts: PlanFacts, cures: Cures) -> CedarRequest:
    """May the plan run at all?"""
    context = ask.common(cures)
    context["budget"] = {
        "planMicroUsd": facts.cost_micro_usd,
        "steps": facts.step_count,
        "depth": facts.depth,
        "fanOut": facts.fan_out,
    }
    return CedarRequest(ask.user, Uid(ACTION_TYPE, SUBMIT), ask.plan, context, (ask.home,))


def step_question(
    ask: Ask,
    capability: Capability,
    facts: StepFacts,
    inputs: JsonObject,
    cures: Cures,
    words: Words,
    *,
    purpose: str = "step",
) -> CedarRequest:
    """May this capability be called with these inputs (all of them, or those known so far)? Raises ``NotSayableError``."""
    context = ask.common(cures)
    context["call"] = {
        "capability": capability.name,
        "purpose": purpose,
        "clearance": capability.receives_up_to,
        "costMicroUsd": capability.cost.per_call_micro_usd,
        "itemsAtMost": facts.items_at_most,
        "plannedBy": ask.writer,
    }
    context["flow"] = {
        "selectors": _label(facts.selectors),
        "payload": _label(facts.payload),
        "control": _label(facts.control),
        "externalHosts": sorted(facts.external_hosts),
        "untrustedHosts": sorted(facts.untrusted_hosts),
        "personal": list(personal_of(facts)),
    }
    context["input"] = _inputs(inputs, words.inputs[capability.name])
    agent = Uid(AGENT, agent_id(capability))
    return CedarRequest(ask.user, Uid(ACTION_TYPE, capability.name), agent, context, (ask.home,))


def sayable(inputs: JsonObject, capability: Capability, words: Words) -> JsonObject:
    """Those of the inputs that a policy can be asked about, and those that no policy can see. Before a call, what does not fit
    the capability's schema is not known yet: whether it ends there is said when the call is due."""
    types = words.inputs[capability.name]["attributes"]
    found = dict(inputs)
    for name, value in inputs.items():
        try:
            _inputs({name: value}, words.inputs[capability.name])
        except NotSayableError:
            if name in types:
                del found[name]
    return found


def personal_of(facts: StepFacts) -> tuple[str, ...]:
    """JSON Pointers into the inputs of what is handed over (payload, control) and about a person, sorted."""
    found: set[str] = set()
    for argument in facts.arguments:
        if argument.parameter_class != "selector" and argument.label.pii:
            found.update(argument.personal or (_pointer(argument),))
    return tuple(sorted(found))


def _pointer(argument: ArgumentFacts) -> str:
    return "/" + argument.name.replace("~", "~0").replace("/", "~1")


def _inputs(inputs: JsonObject, kind: JsonObject) -> JsonObject:
    types = kind["attributes"]
    found: JsonObject = {}
    for name, value in inputs.items():
        if name in types:
            try:
                found[name] = input_value(value, types[name])
            except (ValueError, OverflowError) as error:
                raise NotSayableError(f"/{name}", f"{name} cannot be judged by a policy: {error}") from None
    return found


def _label(label: Label) -> JsonObject:
    return {"integrity": label.integrity, "confidentiality": label.confidentiality, "pii": label.pii}


def _tenant(tenant: TenantConfig) -> JsonObject:
    return {
        "regions": list(tenant.regions or (tenant.region,)),
        "tier": tenant.tier,
        "maxSteps": tenant.bounds.max_steps,
        "maxDepth": tenant.bounds.max_depth,
        "maxFanOut": tenant.bounds.max_fan_out,
        "maxCostMicroUsd": tenant.bounds.max_cost_micro_usd,
        "hosts": sorted(hosts_of_tenant(tenant)),
    }


def _tags(tenant: TenantConfig) -> JsonObject:
    return {name: list(entries) for name, entries in tenant.directories.items()}


def hosts_of_tenant(tenant: TenantConfig) -> frozenset[str]:
    """The hosts outside that steps of this tenant may reach, in the spelling of facts."""
    return _hosts(tenant.egress_hosts)


@lru_cache(maxsize=1_000)
def _hosts(entries: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(entry_of, entries))


def _written(ask: Ask) -> JsonObject:
    author = ask.provenance
    return {
        "tenant": _ref(ask.home),
        "writtenBy": ask.writer,
        "seenIntegrity": author.seen_integrity if author is not None else 0,
    }


def _ref(uid: Uid) -> JsonObject:
    return {"__entity": uid.wire()}
