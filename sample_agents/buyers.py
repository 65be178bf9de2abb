"""``crm.find_buyers``: a few invented people per tenant, so that personal data has a source to come from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from agent_kit import Agent, CapabilityError, StepContext
from engine.domain.base import Frozen
from sample_agents.dataset import Datasets

_MAX_FILE_BYTES = 1024 * 1024


class FindInputs(Frozen):
    """See the manifest."""

    segment: str
    limit: int = 10


def find(folder: Path, inputs: FindInputs) -> dict[str, Any]:
    """The buyers of a segment, best first. ``CapabilityError("crm.no_buyers")`` for a tenant without any."""
    path = folder / "buyers.csv"
    if not path.is_file() or path.stat().st_size > _MAX_FILE_BYTES:
        raise CapabilityError("crm.no_buyers", "This tenant has no records of buyers.")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["segment"] == inputs.segment]
    rows.sort(key=lambda row: (-float(row["sales"]), row["email"]))
    buyers = [
        {"name": row["name"], "email": row["email"], "city": row["city"], "sales": float(row["sales"])} for row in rows
    ]
    return {"segment": inputs.segment, "buyers": buyers[: inputs.limit]}


def register(agent: Agent, datasets: Datasets) -> None:
    """Add the capability to an agent."""

    @agent.capability("crm.find_buyers")
    async def crm_find_buyers(inputs: FindInputs, context: StepContext) -> dict[str, Any]:
        return await context.compute(find, datasets.folder_of(context.tenant_id), inputs)
