"""Put the sample capabilities together: one agent process that serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from fastapi import FastAPI

from agent_kit import Agent, AgentAuth, GrantCheck, IdempotencyStore, create_app, load_manifests
from sample_agents import buyers, insights, lakehouse, mix_capabilities, outbox, performance, rates, retrieval
from sample_agents.dataset import Datasets
from sample_agents.endpoints import ENDPOINTS
from sample_agents.search_service import SearchService, SearchSettings

CATALOG = Path(__file__).resolve().parent.parent / "catalog"
SAMPLES = CATALOG / "samples"


def sample_agent(
    data: Path,
    *,
    outbox_file: Path,
    catalog: Path = CATALOG,
    rates_url: str | None = None,
    workspace: lakehouse.DatabricksSettings | None = None,
    search: SearchSettings | None = None,
    only: Collection[str] | None = None,
) -> Agent:
    """The agent with the sample capabilities over the tenants' data in ``data``; its effects are kept in ``outbox_file``.

    ``only`` names the endpoints that it serves; None means all. ``ValueError`` for one that there is not.

    With a Databricks ``workspace`` its jobs run the reports of the lakehouse, with ``search`` an Azure AI Search service finds
    the passages of briefs; without them both are done in this process.
    """
    agent = Agent(load_manifests(catalog / "capabilities"))
    datasets = Datasets(data)
    passages = retrieval.EmbeddedSearch(datasets) if search is None else SearchService(search)
    engine = lakehouse.SqliteEngine(datasets) if workspace is None else lakehouse.DatabricksEngine(workspace)
    registrations: dict[str, Callable[[], None]] = {
        "analytics": lambda: performance.register(agent, datasets),
        "mmm": lambda: mix_capabilities.register(agent, datasets),
        "rag": lambda: retrieval.register(agent, passages),
        "rates": lambda: rates.register(agent, rates_url),
        "lakehouse": lambda: lakehouse.register(agent, engine),
        "insights": lambda: insights.register(agent),
        "crm": lambda: buyers.register(agent, datasets),
        "outbox": lambda: outbox.register(agent, outbox.Outbox(outbox_file)),
    }
    if unknown := sorted(set(only or ()) - set(ENDPOINTS)):
        raise ValueError(f"there is no endpoint {', '.join(unknown)}; there are {', '.join(ENDPOINTS)}")
    for name in ENDPOINTS:
        if only is None or name in only:
            registrations[name]()
    return agent


def sample_app(
    agent: Agent, *, auth: AgentAuth, grants: GrantCheck, store: IdempotencyStore, warm: bool = True
) -> FastAPI:
    """The web app of the sample agent. With ``warm``, heavy libraries are loaded in the background after the start."""
    return create_app(agent, auth=auth, grants=grants, store=store, warm_up=warm_up if warm else None)


def warm_up() -> None:
    """Import what the first fit and the first search would otherwise wait for: seconds on a cold disk."""
    import bm25s  # noqa: F401
    import numpy  # noqa: F401
    import Stemmer  # noqa: F401
