"""Routing without a model: which capabilities and playbooks an intent asks for, or that it asks for none of them.

One classifier serves tenants' catalogs (a few examples each) and public data sets (a hundred per label). It runs in this
process, learns when a catalog is first asked for, and downloads nothing. An optional extra adds sentence embeddings.
"""

from planner_graph.routing.catalog_router import CatalogRouter, CatalogRouters, capabilities_of, clear_playbook
from planner_graph.routing.embedding import EmbeddingSource
from planner_graph.routing.model import (
    WITH_EMBEDDINGS,
    Assessment,
    Encoder,
    IntentModel,
    ScopeRule,
    TrainingSettings,
    TrainingTexts,
    train,
)

__all__ = [
    "WITH_EMBEDDINGS",
    "Assessment",
    "CatalogRouter",
    "CatalogRouters",
    "EmbeddingSource",
    "Encoder",
    "IntentModel",
    "ScopeRule",
    "TrainingSettings",
    "TrainingTexts",
    "capabilities_of",
    "clear_playbook",
    "train",
]
