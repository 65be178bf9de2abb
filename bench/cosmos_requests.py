"""How many requests to Cosmos DB a governed run makes: by container and operation, to begin and end it, and for each
step.

``python -m bench.cosmos_requests`` runs the activities of a run over the real SDK against the model of the service that
the tests use (``tests/support/cosmos_fake``). **The counts are real, the request units are not**: the model charges one
unit and one more per kilobyte of answer, whatever the operation, so ``simulated_units`` only shows that they are
recorded. What the service charges is documented by it: about 1 unit for reading a document of 1 KB by its id, about 5
to 6 for writing one, more for larger documents, for each operation of a batch, and for queries by what they touch.
Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from engine.adapters.cosmos import (
    CosmosApprovalStore,
    CosmosAuditLog,
    CosmosBudgetLedger,
    CosmosConnection,
    CosmosEventLog,
    CosmosResultCache,
    CosmosRunStore,
    CosmosSettings,
    RunPartitions,
)
from engine.domain.status import RunStatus
from engine.ports.telemetry import Attribute
from tests.support.cosmos_fake import Account, CosmosFake
from tests.support.world import QuietTelemetry, World, plan_of

STEPS = 20
Costs = dict[str, dict[str, float]]


class Meter(QuietTelemetry):
    """Counts what the stores report of each request."""

    def __init__(self) -> None:
        self.requests, self.units = Counter[str](), Counter[str]()

    def record(self, name: str, value: float, attributes: Mapping[str, Attribute] | None = None) -> None:
        """One request, and its units."""
        if name == "livoa.cosmos.request_units":
            of = dict(attributes or {})
            key = f"{of['container']} {of['operation']}"
            self.requests[key] += 1
            self.units[key] += value  # type: ignore[assignment]  # a Counter holds fractions as well

    def taken(self) -> Costs:
        """What was counted since the last time."""
        found = {
            key: {"requests": count, "simulated_units": round(self.units[key], 1)}
            for key, count in sorted(self.requests.items())
        }
        self.requests.clear()
        self.units.clear()
        return found


async def measure(steps: int) -> dict[str, object]:
    """One run with ``steps`` calls, each without dependencies."""
    meter = Meter()
    world = World(max_cost_micro_usd=10_000_000)
    with CosmosFake(Account(lambda: world.clock.now().timestamp())) as fake:
        connection = CosmosConnection(CosmosSettings(fake.url, key=fake.KEY), meter)
        await connection.create_containers()
        partitions = RunPartitions(connection, world.clock)
        runs = CosmosRunStore(partitions)
        world.runs = runs  # type: ignore[assignment]  # the same port
        world.deps = replace(
            world.deps,
            runs=runs,
            events=CosmosEventLog(partitions),
            audit=CosmosAuditLog(connection),
            budgets=CosmosBudgetLedger(connection, world.clock),
            approvals=CosmosApprovalStore(partitions),
            result_cache=CosmosResultCache(connection),
        )
        meter.taken()
        plan = plan_of(*({"id": f"s{n}", "capability": "calc.double", "inputs": {"n": n}} for n in range(steps)))
        planned = await world.submit(plan)
        assert planned["status"] == "planned", planned
        begun = meter.taken()
        for number in range(steps):
            outcome = await world.perform(f"s{number}")
            assert outcome.status == "succeeded", outcome
        performed = meter.taken()
        await world.finish(RunStatus.SUCCEEDED)
        ended = meter.taken()
        await connection.close()
    each = {key: {name: round(value / steps, 2) for name, value in costs.items()} for key, costs in performed.items()}
    return {
        "steps": steps,
        "to_begin": begun,
        "for_each_step": each,
        "requests_for_each_step": round(sum(costs["requests"] for costs in performed.values()) / steps, 2),
        "to_end": ended,
        "units_are": "simulated by the model of the service: they say nothing about a bill",
    }


if __name__ == "__main__":
    json.dump(asyncio.run(measure(STEPS)), sys.stdout, indent=1)
    print()
