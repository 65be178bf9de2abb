"""What decides and plans: policies, planner, who composes answers, and their models. In the app; a worker has none of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from engine.bootstrap.settings import Settings
from engine.domain.errors import LivoaError
from engine.domain.tenant import TenantConfig
from engine.ports.audit_log import AuditLog
from engine.ports.catalog import Catalog
from engine.ports.clock import Clock
from engine.ports.deps import Deps
from engine.ports.models import ChatModels, NoChatModels
from engine.ports.personal_data import PersonalDataDetector
from engine.ports.policy import PolicyEngine, PolicyWatch

if TYPE_CHECKING:
    from planner_graph.routing import CatalogRouters

_AZURE_OPENAI_AUDIENCE = "https://cognitiveservices.azure.com"


class DecidesNothing:
    """The policy engine, planner and composer of a process that carries out what others decided. Raises when it is asked."""

    async def decide_plan(self, request: object) -> NoReturn:
        """See ``PolicyEngine``."""
        raise _not_here()

    async def decide_step(self, request: object) -> NoReturn:
        """See ``PolicyEngine``."""
        raise _not_here()

    async def propose(self, task: object, review: object) -> NoReturn:
        """See ``Planner``."""
        raise _not_here()

    async def route(self, task: object) -> NoReturn:
        """See ``Planner``."""
        raise _not_here()

    async def compose(self, request: object, sink: object) -> NoReturn:
        """See ``AnswerComposer``."""
        raise _not_here()


def _not_here() -> LivoaError:
    return LivoaError("internal.unexpected", "This process decides and plans nothing.", status=500)


def nothing() -> dict[str, Any]:
    """Fields of ``Deps`` of a process that only carries out."""
    nobody = DecidesNothing()
    return {"policy": nobody, "planner": nobody, "composer": nobody}


def deciding(
    settings: Settings, catalog: Catalog, clock: Clock, detector: PersonalDataDetector, audit: AuditLog
) -> dict[str, Any]:
    """Fields of ``Deps`` that decide and plan, as far as they work without a model."""
    from planner_graph.degraded import DegradedComposer, DegradedPlanner

    return {
        **_policies(settings, catalog, clock, detector, audit),
        "models": _models(settings),
        "planner": DegradedPlanner(catalog, clock, routers=_routers(settings)),
        "composer": DegradedComposer(),
    }


def _policies(
    settings: Settings, catalog: Catalog, clock: Clock, detector: PersonalDataDetector, audit: AuditLog
) -> dict[str, PolicyEngine | PolicyWatch]:
    """The decision point over the policies of the catalog's folder; sets that runs are pinned to are kept in the data folder.

    What it decides by goes on record when it changes."""
    from engine.adapters.files.policy_archive import FilesPolicyArchive
    from engine.adapters.files.policy_source import FilesPolicySource
    from engine.evidence.in_force import InForceRecords
    from policy.engine import GovernedPolicyEngine
    from policy.library import GUARANTEES, PolicyLibrary
    from policy.on_record import RecordingPolicyEngine
    from policy.personal_data import DetectingPolicyEngine
    from policy.trouble import PolicyTrouble

    archive = FilesPolicyArchive(settings.data_dir / "policies")
    source, trouble = FilesPolicySource(settings.catalog_dir, clock), PolicyTrouble()
    library = PolicyLibrary(source, catalog, archive, required=GUARANTEES, trouble=trouble)
    detecting = DetectingPolicyEngine(GovernedPolicyEngine(catalog, library), detector, catalog)
    recording = RecordingPolicyEngine(detecting, library, catalog, InForceRecords(audit, clock))
    return {"policy": recording, "policy_watch": library}


def _routers(settings: Settings) -> CatalogRouters:
    """Routing without a model: by words, and by sentence embeddings where the extra is installed."""
    from planner_graph.routing import CatalogRouters, EmbeddingSource
    from planner_graph.routing.minilm import installed

    wanted = settings.embedding_router == "on" or (settings.embedding_router == "auto" and installed())
    return CatalogRouters(embedding=EmbeddingSource(settings.data_dir) if wanted else None)


def _models(settings: Settings) -> ChatModels:
    """The chat models. Light: the libraries are loaded by the first call."""
    if not settings.model_endpoints:
        return NoChatModels()
    from engine.adapters.azure_openai import AzureOpenAiChatModels
    from engine.adapters.entra import ManagedIdentityCredential

    return AzureOpenAiChatModels(settings.model_endpoints, ManagedIdentityCredential(_AZURE_OPENAI_AUDIENCE))


def with_models(deps: Deps) -> Deps:
    """The same with models in front of what works without them. One gateway, because it holds the deployments' breakers."""
    from planner_graph.model_calls import ModelGateway
    from planner_graph.planner import LangGraphPlanner
    from planner_graph.synthesis.composer import ModelComposer

    gateway = ModelGateway(
        deps.models, deps.model_results, deps.budgets, deps.audit, deps.payloads, deps.clock, deps.telemetry
    )

    def open_circuits(tenant: TenantConfig) -> Mapping[str, str]:
        known = deps.catalog.capabilities
        return deps.circuits.known_open(tenant, [known[n] for n in tenant.enabled_capabilities if n in known])

    planner = LangGraphPlanner(deps.catalog, deps.clock, gateway, deps.models, deps.planner, circuits=open_circuits)
    composer = ModelComposer(gateway, deps.models, deps.clock)
    return dataclasses.replace(deps, planner=planner, composer=composer)
