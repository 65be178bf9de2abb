"""``rates.lookup``: ask an external rate service over HTTP, through the egress fence."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from pydantic import Field

from agent_kit import Agent, CapabilityError, StepContext
from agent_kit.egress import get_json
from engine.domain.base import Frozen
from sample_agents.figures import insight, kpi

_TIMEOUT_S = 5.0
_SOURCE = re.compile(r"[ -~]{1,200}")


class LookupInputs(Frozen):
    """See the manifest."""

    base: str
    quote: str
    day: date = Field(alias="date")
    amount: float | None = None


class Fixing(Frozen):
    """What the service answers. Anything else is refused: it is somebody else's text."""

    fixing_date: date
    rate: float = Field(gt=0, allow_inf_nan=False)
    source: str = Field(max_length=200)


def register(agent: Agent, service_url: str | None) -> None:
    """Add the capability to an agent. ``service_url`` is the configured address of the rate service."""

    @agent.capability("rates.lookup")
    async def rates_lookup(inputs: LookupInputs, context: StepContext) -> dict[str, Any]:
        if service_url is None:
            raise CapabilityError("rates.not_configured", "No rate service is configured.")
        query = {"base": inputs.base, "quote": inputs.quote, "date": inputs.day.isoformat()}
        hosts = context.manifest.egress_hosts
        status, body = await get_json(f"{service_url}/rates", query=query, hosts=hosts, timeout_s=_TIMEOUT_S)
        return answer(inputs, read_fixing(status, body))


def read_fixing(status: int, body: Any) -> Fixing:
    """The fixing in the service's answer. ``CapabilityError``: ``rates.not_found``, ``rates.bad_answer``, or
    ``rates.unavailable`` (retryable)."""
    if status == 404:
        raise CapabilityError("rates.not_found", "There is no fixing for this pair at this date.")
    if status >= 500 or status == 429:
        raise CapabilityError("rates.unavailable", f"The rate service answered {status}.", retryable=True)
    try:
        fixing = Fixing.model_validate(body)
    except ValueError:
        raise CapabilityError("rates.bad_answer", "The rate service's answer does not have the agreed form.") from None
    if status != 200 or _SOURCE.fullmatch(fixing.source) is None:
        raise CapabilityError("rates.bad_answer", f"The rate service answered {status} in an unexpected way.")
    return fixing


def answer(inputs: LookupInputs, fixing: Fixing) -> dict[str, Any]:
    """The output of ``rates.lookup``."""
    found: dict[str, Any] = {
        "base": inputs.base,
        "quote": inputs.quote,
        "date": inputs.day.isoformat(),
        "fixing_date": fixing.fixing_date.isoformat(),
        "rate": fixing.rate,
        "source": fixing.source,
        "kpis": [kpi(f"{inputs.quote} for one {inputs.base}", fixing.rate, inputs.quote)],
    }
    text = f"One {inputs.base} is {fixing.rate:g} {inputs.quote} by the fixing of {fixing.fixing_date}"
    if fixing.fixing_date != inputs.day:
        text += f", the last on or before {inputs.day}"
    found["insights"] = [insight("finding", text + ".")]
    if inputs.amount is not None:
        found["converted"] = round(inputs.amount * fixing.rate, 2)
        text = f"{inputs.amount:,.2f} {inputs.base} come to {found['converted']:,.2f} {inputs.quote}."
        found["insights"].append(insight("finding", text))
        found["kpis"].append(kpi(f"{inputs.amount:,.2f} {inputs.base}", found["converted"], inputs.quote))
    return found
