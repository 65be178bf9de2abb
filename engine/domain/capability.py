"""The capability manifest: what an agent or tool claims it can do. One YAML page per capability in ``catalog/capabilities``.

From it come the planner's view, input and output checks, the agent contract tests and, later, the policy schema.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, JsonObject

ParameterClass = Literal["selector", "payload", "control"]
"""``selector`` chooses a target (recipient, account, URL, path, query target, amount, count, code); ``payload`` is content;
``control`` steers how. A parameter that is not declared is treated as a selector, the strictest class."""

SideEffect = Literal["none", "read", "write", "external"]
Delivery = Literal["tool", "llm", "http", "service_bus"]


class OutputLabel(Frozen):
    """Ceiling of trust in an output: integrity 0 (web, documents) to 3 (user literal); confidentiality 0 to 3."""

    integrity: int = Field(default=0, ge=0, le=3)
    confidentiality: int = Field(default=0, ge=0, le=3)
    pii: bool = False


class CostModel(Frozen):
    """What one call costs, in micro-USD (one millionth of a dollar). Reserved before the call, settled after it."""

    per_call_micro_usd: int = Field(default=0, ge=0)


class InverseOperation(Frozen):
    """The capability that undoes this one."""

    capability: str


class Capability(Frozen):
    """One capability manifest. ``input_schema`` and ``output_schema`` are JSON Schema 2020-12 objects.

    ``endpoint`` names the agent that serves it (an http delivery) or the in-process tool; the address is configuration.
    ``examples`` are sentences a person would write when wanting this capability; the router ranks by them.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$", max_length=100)
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title: str = Field(min_length=1, max_length=80)
    description: str = Field(min_length=1, max_length=2000)
    examples: tuple[str, ...] = ()
    delivery: Delivery
    endpoint: str = Field(min_length=1, max_length=100)
    input_schema: JsonObject
    parameters: dict[str, ParameterClass] = Field(default_factory=dict)
    output_schema: JsonObject
    output_label: OutputLabel = OutputLabel()
    side_effect: SideEffect = "write"
    idempotent: bool = False
    deterministic: bool = False
    cache_s: float = Field(default=86_400, gt=0, le=30 * 86_400)
    """How long a result may stand in for a call of a step with ``cache: true``, where the capability is deterministic."""
    inverse: InverseOperation | None = None
    compensation_required: bool = False
    fallback: str | None = None
    """What a step with ``on_failure: fallback`` calls once its own attempts are used up. Both have no effects and the same
    schemas, and what the fallback says is to be trusted at least as far (``engine.adapters.catalog_rules``)."""
    timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    lease_s: float | None = Field(default=None, gt=0, le=3600)
    max_parallel: int | None = Field(default=None, ge=1, le=64)
    """Most calls of it that one run keeps open at a time, items of a map included; absent: as many as the run may."""
    cost: CostModel = CostModel()
    egress_hosts: tuple[str, ...] = ()
    clearance: int | None = Field(default=None, ge=0, le=3)
    """Highest confidentiality it may be given; when absent 1 for an external side effect, else 3."""
    region: str = "any"
    sla: str = ""

    def parameter_class(self, name: str) -> ParameterClass:
        """The class of one input parameter; undeclared means ``selector``."""
        return self.parameters.get(name, "selector")

    @property
    def is_repeatable(self) -> bool:
        """True when beginning it again under the same key does no harm: no effect by calling, or one that is ``idempotent``."""
        return self.idempotent or self.side_effect in ("none", "read")

    @property
    def is_cacheable(self) -> bool:
        """True when an earlier result is as good as a call: deterministic, and nothing happens by calling."""
        return self.deterministic and self.side_effect in ("none", "read")

    @property
    def receives_up_to(self) -> int:
        """The highest confidentiality of arguments that it is cleared for."""
        if self.clearance is not None:
            return self.clearance
        return 1 if self.side_effect == "external" else 3
