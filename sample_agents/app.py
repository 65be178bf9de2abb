"""Put the sample capabilities together: one agent process that serves all of them."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from agent_kit import Agent, AgentAuth, GrantCheck, IdempotencyStore, create_app, load_manifests
from sample_agents import buyers, insights, mix_capabilities, outbox, performance, rates, retrieval
from sample_agents.dataset import Datasets

CATALOG = Path(__file__).resolve().parent.parent / "catalog"
SAMPLES = CATALOG / "samples"


def sample_agent(data: Path, *, outbox_file: Path, catalog: Path = CATALOG, rates_url: str | None = None) -> Agent:
    """The agent with all sample capabilities over the tenants' data in ``data``; its effects are kept in ``outbox_file``."""
    agent = Agent(load_manifests(catalog / "capabilities"))
    datasets = Datasets(data)
    performance.register(agent, datasets)
    mix_capabilities.register(agent, datasets)
    retrieval.register(agent, datasets)
    rates.register(agent, rates_url)
    insights.register(agent)
    buyers.register(agent, datasets)
    outbox.register(agent, outbox.Outbox(outbox_file))
    return agent


def sample_app(
    agent: Agent, *, auth: AgentAuth, grants: GrantCheck, store: IdempotencyStore, warm: bool = True
) -> FastAPI:
    """The web app of the sample agent. With ``warm``, heavy libraries are loaded in the background after the start."""
    return create_app(agent, auth=auth, grants=grants, store=store, warm_up=warm_up if warm else None)


def warm_up() -> None:
    """Import what the first fit and the first search would otherwise wait for: seconds on a cold disk."""
    import bm25s  # noqa: F401
    import sklearn.linear_model
    import sklearn.metrics
    import sklearn.model_selection  # noqa: F401
    import Stemmer  # noqa: F401
