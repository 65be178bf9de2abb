"""What a tenant can ask for, in its own catalog's words: the help that goes with "this is not something I can do"."""

from __future__ import annotations

from engine.domain.tenant import TenantConfig
from engine.ports.catalog import Catalog

_MAX_SUGGESTIONS = 8


def suggestions(catalog: Catalog, tenant: TenantConfig) -> tuple[str, ...]:
    """One example each of the playbooks the tenant can use, then of its capabilities, up to a handful."""
    found = [
        f"{playbook.title}: “{playbook.examples[0]}”"
        for _, playbook in sorted(catalog.playbooks.items())
        if all(tenant.enables(step["capability"]) for step in playbook.plan.get("steps", ()) if "capability" in step)
    ]
    if not found:
        found = [
            f"{capability.title}: “{capability.examples[0]}”"
            for name, capability in sorted(catalog.capabilities.items())
            if tenant.enables(name) and capability.examples
        ]
    return tuple(found[:_MAX_SUGGESTIONS])
