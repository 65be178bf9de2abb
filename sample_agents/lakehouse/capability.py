"""Adds the capability to an agent."""

from __future__ import annotations

from typing import Any

from agent_kit import Agent, CapabilityError, StepContext
from sample_agents.lakehouse.reports import ReportEngine, ReportInputs, output_of


def register(agent: Agent, engine: ReportEngine) -> None:
    """Add ``lakehouse.report``, run by ``engine``."""

    @agent.capability("lakehouse.report", streams=True)
    async def lakehouse_report(inputs: ReportInputs, context: StepContext) -> dict[str, Any]:
        if inputs.end < inputs.start:
            raise CapabilityError("data.period_invalid", "The period ends before it starts.")
        return output_of(inputs, await engine.run(inputs, context))
