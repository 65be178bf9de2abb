"""The shipped catalog, its vocabulary, and engines over policies given as text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.files import FilesCatalog
from engine.domain.errors import LivoaError
from engine.domain.policy import PlanPolicyRequest, StepPolicyRequest
from engine.domain.principal import Principal, Role
from engine.domain.run import PlanProvenance, RunContext, RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan import check_plan
from engine.ports.policy import PolicyText, PolicyTexts
from policy.book import Words
from policy.engine import GovernedPolicyEngine
from policy.library import MemoryPolicyArchive, PolicyLibrary

ROOT = Path(__file__).resolve().parents[3]
CATALOG = FilesCatalog(ROOT / "catalog")
WORDS = Words.of(CATALOG.capabilities.values())
SECOND_PERSON = {"approved": True, "approver_differs": True}


def shipped(folder: str) -> tuple[PolicyText, ...]:
    paths = sorted((ROOT / "catalog" / "policies" / folder).glob("*.cedar"))
    return tuple(PolicyText(f"{folder}/{path.name}", path.read_text()) for path in paths)


class Texts:
    """A source whose texts a test can change, and which can be unavailable."""

    def __init__(self, **layers: tuple[PolicyText, ...]) -> None:
        self.platform = layers.get("platform", shipped("platform"))
        self.default = layers.get("default", shipped("default"))
        self.tenants: dict[str, tuple[PolicyText, ...]] = {
            "contoso": shipped("tenants/contoso"),
            "fabrikam": shipped("tenants/fabrikam"),
        }
        self.broken = False

    async def texts(self, tenant_id: str) -> PolicyTexts:
        if self.broken:
            raise LivoaError("policy.unavailable", "The policies cannot be read: gone.", status=503)
        return PolicyTexts(self.platform, self.default, self.tenants.get(tenant_id, ()))

    def add(self, tenant_id: str, *policies: str) -> None:
        text = PolicyText(f"tenants/{tenant_id}/more.cedar", "\n".join(policies))
        self.tenants[tenant_id] = (*self.tenants.get(tenant_id, ()), text)


def tenant(tenant_id: str = "contoso", **fields: Any) -> TenantConfig:
    base: dict[str, Any] = {
        "tenant_id": tenant_id,
        "display_name": tenant_id,
        "region": "uksouth",
        "enabled_capabilities": tuple(CATALOG.capabilities),
        "egress_hosts": ("mail-relay.example", "127.0.0.1"),
        "directories": {"recipients": ("finance@contoso.example",)},
    }
    return TenantConfig.model_validate(base | fields)


def person(tenant_id: str = "contoso", **fields: Any) -> Principal:
    base: dict[str, Any] = {
        "tenant_id": tenant_id,
        "subject": "d:alice",
        "kind": "user",
        "client_app": "cli",
        "roles": {Role.RUNS_SUBMIT},
    }
    return Principal.model_validate(base | fields)


_LAYERS: Any = OrderedDict()


def library(source: Any, archive: Any = None) -> PolicyLibrary:
    """A library that shares what others of this process have admitted: a child process per test would take minutes."""
    made = PolicyLibrary(source, CATALOG, archive)
    made._layers = _LAYERS
    return made


class Gate:
    """The engine over given policies, with short ways to ask it about plans and steps."""

    def __init__(self, texts: Texts | None = None) -> None:
        self.texts = texts if texts is not None else Texts()
        self.archive = MemoryPolicyArchive()
        self.library = library(self.texts, self.archive)
        self.engine = GovernedPolicyEngine(CATALOG, self.library)

    def restarted(self) -> Gate:
        """The same policies and archive in a new process."""
        other = Gate(self.texts)
        other.archive = self.archive
        other.library = library(self.texts, self.archive)
        other.engine = GovernedPolicyEngine(CATALOG, other.library)
        return other

    async def plan(self, *steps: dict[str, Any], source: str = "caller", **changes: Any) -> Any:
        return await self.engine.decide_plan(PlanPolicyRequest(**(self._common(steps, source, changes) | changes)))

    async def step(
        self, step_id: str, inputs: Mapping[str, Any], *steps: dict[str, Any], source: str = "caller", **changes: Any
    ) -> Any:
        common = self._common(steps, source, changes)
        for unasked in ("capability_names", "estimated_cost_micro_usd"):
            common.pop(unasked)
        name = changes.pop("capability_name", None)
        name = name or next(one["capability"] for one in steps if one["id"] == step_id)
        own = {"capability_name": name, "capability": CATALOG.capabilities.get(name), "inputs": dict(inputs)}
        return await self.engine.decide_step(StepPolicyRequest(**(common | own | changes), step_id=step_id))

    def _common(self, steps: Any, source: str, changes: dict[str, Any]) -> dict[str, Any]:
        config = changes.pop("tenant", None) or tenant()
        request = RunRequest(
            intent=changes.pop("intent", "do it"),
            context=RunContext.model_validate(
                {"values": changes.pop("values", {}), "documents": changes.pop("documents", [])}
            ),
        )
        document = {"schema_version": "1.0", "goal": "g", "steps": list(steps)}
        everything = tenant(config.tenant_id)
        checked = check_plan(document, tenant=everything, catalog=CATALOG)
        assert checked.plan is not None, checked.violations
        return {
            "principal": changes.pop("principal", None) or person(config.tenant_id),
            "tenant": config,
            "run_id": "run",
            "plan_hash": checked.plan.plan_hash,
            "plan": checked.plan.plan,
            "request": request,
            "provenance": changes.pop("provenance", PlanProvenance.model_validate({"source": source})),
            "capability_names": checked.plan.capability_names,
            "estimated_cost_micro_usd": checked.plan.estimated_cost_micro_usd,
        }


@pytest.fixture
def texts() -> Texts:
    return Texts()


@pytest.fixture
def gate(texts: Texts) -> Gate:
    return Gate(texts)


@pytest.fixture(scope="session")
def shared_gate() -> Gate:
    """For tests that change no policies: loading is done once."""
    return Gate()
