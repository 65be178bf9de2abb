"""Routing over a tenant's catalog: what an intent asks for, out of what this tenant has enabled.

Three models learn from the same few examples: one tells the catalog's business from everything else, one ranks playbooks, one
ranks capabilities. They are trained when a tenant is first routed and kept by catalog version and enabled set. A request that
is the catalog's business but names nothing in particular is in scope with low confidence: the caller should offer choices.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.domain.capability import Capability
from engine.domain.playbook import Playbook
from engine.domain.tenant import TenantConfig
from engine.ports.catalog import Catalog
from engine.ports.planner import Ranked, Route, RouteHop
from planner_graph.routing.embedding import EmbeddingSource
from planner_graph.routing.everyday import EVERYDAY
from planner_graph.routing.model import IntentModel, ScopeRule, TrainingSettings, TrainingTexts

SURE = 0.5
_AHEAD = 4.0
"""A playbook may be taken without asking from ``SURE`` on and when it is ``_AHEAD`` times as likely as the next."""

_CATALOG_SCOPE = TrainingSettings(scope=ScopeRule(score=1.0, known=3.0, bias=-1.9))
"""The scope rule for a few examples per label; checked by tests/unit/planner_graph/test_routing_catalog.py."""
_MAX_KEPT = 256
_MAX_CAPABILITIES = 12
_MIN_CAPABILITY_SCORE = 0.05
_MAX_PLAYBOOKS = 5
_MIN_PLAYBOOK_SCORE = 0.02


@dataclass(frozen=True, slots=True)
class _Models:
    scope: IntentModel
    playbooks: IntentModel
    capabilities: IntentModel


class CatalogRouter:
    """Routes intents of one tenant. Trained on first use; safe to share between threads."""

    def __init__(self, catalog: Catalog, tenant: TenantConfig, *, embedding: EmbeddingSource | None = None) -> None:
        self.playbooks: Mapping[str, Playbook] = {
            name: playbook
            for name, playbook in sorted(catalog.playbooks.items())
            if tenant.enables_playbook(name)
            and all(tenant.enables(capability) for capability in capabilities_of(playbook))
        }
        self.capabilities: Mapping[str, Capability] = {
            name: capability for name, capability in sorted(catalog.capabilities.items()) if tenant.enables(name)
        }
        self._embedding = embedding
        self._models: _Models | None = None
        self._training = threading.Lock()

    def route(self, intent: str, goals: Sequence[str] = ()) -> Route:
        """What the intent asks for. Out of scope: everything the tenant could ask for, with score 0."""
        models = self._trained()
        text = " ".join((intent, *goals))
        scope = models.scope.assess(text, limit=1)
        if not scope.in_scope:
            everything = tuple(Ranked(name, 0.0) for name in self.capabilities)
            return self._as_route("", everything, (), in_scope=False, confidence=scope.confidence)
        playbooks = tuple(
            found for found in models.playbooks.rank(text, limit=_MAX_PLAYBOOKS) if found.score >= _MIN_PLAYBOOK_SCORE
        )
        capabilities = self._wanted(models.capabilities.rank(text, limit=_MAX_CAPABILITIES), playbooks)
        best = max((found.score for found in (*playbooks, *capabilities)), default=0.0)
        domain = capabilities[0].name.partition(".")[0] if capabilities else ""
        return self._as_route(domain, capabilities, playbooks, in_scope=True, confidence=scope.confidence * best)

    def suggestions(self, names: Sequence[str] = (), *, limit: int = 8) -> tuple[str, ...]:
        """What could be asked for: the title and an example of each playbook, of ``names`` or of all."""
        chosen = [self.playbooks[name] for name in names if name in self.playbooks] or list(self.playbooks.values())
        return tuple(f"{each.title}: “{each.examples[0]}”" for each in chosen[:limit])

    def _wanted(self, ranked: Sequence[Ranked], playbooks: Sequence[Ranked]) -> tuple[Ranked, ...]:
        """Capabilities that fit by their own words, and those that a fitting playbook uses: a plan needs its helpers too."""
        scores = {found.name: found.score for found in ranked if found.score >= _MIN_CAPABILITY_SCORE}
        for playbook in playbooks:
            for name in capabilities_of(self.playbooks[playbook.name]):
                scores[name] = max(scores.get(name, 0.0), playbook.score)
        if not scores:
            scores = {found.name: found.score for found in ranked}
        order = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return tuple(Ranked(name, score) for name, score in order[:_MAX_CAPABILITIES])

    def _as_route(
        self,
        domain: str,
        capabilities: tuple[Ranked, ...],
        playbooks: tuple[Ranked, ...],
        *,
        in_scope: bool,
        confidence: float,
    ) -> Route:
        absent = self._embedding is not None and self._embedding.encoder() is None
        embedded = self._embedding is not None and not absent
        return Route(
            domain=domain,
            capabilities=capabilities,
            in_scope=in_scope,
            confidence=round(confidence, 4),
            router="embedding" if embedded else "lexical",
            playbooks=playbooks,
            fallbacks=(RouteHop("embedding", "embedding.not_installed"),) if absent else (),
        )

    def _trained(self) -> _Models:
        """The models; however many ask first, they are trained once."""
        with self._training:
            if self._models is None:
                self._models = self._train()
            return self._models

    def _train(self) -> _Models:
        by_playbook = [(name, text) for name, each in self.playbooks.items() for text in _sentences(each)]
        by_capability = [
            (name, text)
            for name, each in self.capabilities.items()
            for text in (each.title, each.description, *each.examples)
        ]
        examples = [*by_playbook, *by_capability]
        source = self._embedding
        texts = TrainingTexts(
            [text for _, text in examples],
            EVERYDAY,
            settings=_CATALOG_SCOPE,
            encoder=source.for_examples() if source else None,
            asking=source.encoder() if source else None,
        )
        named = [(at, name) for at, (name, _) in enumerate(examples)]
        return _Models(
            scope=texts.model({at: "catalog" for at, _ in named}),
            playbooks=texts.model(dict(named[: len(by_playbook)])),
            capabilities=texts.model(dict(named[len(by_playbook) :])),
        )


_Key = tuple[str, frozenset[str], tuple[str, ...] | None]


class CatalogRouters:
    """The routers of all tenants, kept by catalog version and enabled set; the least used go first."""

    def __init__(self, *, embedding: EmbeddingSource | None = None) -> None:
        self._embedding = embedding
        self._kept: OrderedDict[_Key, CatalogRouter] = OrderedDict()

    def of(self, catalog: Catalog, tenant: TenantConfig) -> CatalogRouter:
        """The router for what ``tenant`` has enabled of ``catalog``."""
        key = (catalog.version, frozenset(tenant.enabled_capabilities), tenant.enabled_playbooks)
        router = self._kept.pop(key, None) or CatalogRouter(catalog, tenant, embedding=self._embedding)
        self._kept[key] = router
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return router


def clear_playbook(route: Route) -> str | None:
    """The playbook that an intent asks for without doubt; None when what fits is a choice to offer."""
    if not route.in_scope or not route.playbooks or route.playbooks[0].score < SURE:
        return None
    second = route.playbooks[1].score if len(route.playbooks) > 1 else 0.0
    return route.playbooks[0].name if route.playbooks[0].score >= _AHEAD * second else None


def capabilities_of(playbook: Playbook) -> tuple[str, ...]:
    """The capabilities that the steps of a playbook ask for, each once."""
    steps: Sequence[Any] = playbook.plan.get("steps", ())
    return tuple(dict.fromkeys(step["capability"] for step in steps if "capability" in step))


def _sentences(playbook: Playbook) -> Iterator[str]:
    yield from (playbook.title, playbook.description, *playbook.examples)
    # The names that fill a parameter are words of the playbook too: a question may name nothing else.
    for parameter in playbook.parameters:
        for choice in parameter.choices:
            yield " ".join((choice.replace("_", " "), *parameter.synonyms.get(choice, ())))
