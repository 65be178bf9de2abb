"""Capabilities as models see them: cards with trimmed schemas, parameter classes, effects and costs, bounded in size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.domain.capability import Capability
from engine.domain.tenant import TenantConfig
from engine.ports.catalog import Catalog
from planner_graph.seen.sketch import sketch

MAX_CARDS_CHARS = 60_000
"""About 15,000 tokens. What does not fit is shown by its first line, and after that not at all."""
MAX_LISTED = 200
_MAX_DESCRIPTION_CHARS = 400
_MAX_EXAMPLES = 3


def enabled(catalog: Catalog, tenant: TenantConfig) -> tuple[Capability, ...]:
    """The capabilities that the tenant may use, by name."""
    return tuple(found for name, found in sorted(catalog.capabilities.items()) if tenant.enables(name))


def domain_of(capability: str) -> str:
    """The first part of a capability's name."""
    return capability.partition(".")[0]


def cards(capabilities: Iterable[Capability], unavailable: Mapping[str, str]) -> str:
    """One card each, as the planner sees them. ``unavailable`` names those whose circuit is open, with what to use instead."""
    shown: list[str] = []
    left = MAX_CARDS_CHARS
    for capability in capabilities:
        instead = unavailable.get(capability.name)
        text = _card(capability) if instead is None else _unavailable(capability, instead)
        if len(text) > left:
            text = _line(capability)
        if len(text) > left:
            break
        shown.append(text)
        left -= len(text)
    return "\n".join(shown) or "(none)"


def listing(capabilities: Iterable[Capability]) -> str:
    """One line each with examples, as a router model sees them."""
    return "\n".join(
        f"{_line(found)} Examples: {' / '.join(found.examples[:_MAX_EXAMPLES])}" if found.examples else _line(found)
        for found in capabilities
    )


def _line(capability: Capability) -> str:
    return f"- {capability.name}: {' '.join(capability.description.split())[:_MAX_DESCRIPTION_CHARS]}"


def _unavailable(capability: Capability, alternative: str) -> str:
    instead = f"use {alternative} instead" if alternative else "plan without it"
    return f"- {capability.name}: NOT AVAILABLE at the moment; {instead}."


def _card(capability: Capability) -> str:
    names = capability.input_schema.get("properties")
    marks = {name: capability.parameter_class(name) for name in names} if isinstance(names, dict) else {}
    facts = [f"effect {capability.side_effect}", f"cost {capability.cost.per_call_micro_usd}"]
    if capability.compensation_required and capability.inverse is None:
        facts.append("needs undo_capability")
    return (
        f"{_line(capability)}\n  {', '.join(facts)}"
        f"\n  inputs {sketch(capability.input_schema, marks=marks)}"
        f"\n  output {sketch(capability.output_schema)}"
    )
