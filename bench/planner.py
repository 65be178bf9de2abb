"""What planning costs beside the models: checks of a 50-step plan, and the whole graph around answers that take no time.

``python bench/planner.py [--steps 50] [--rounds 200]`` prints one JSON object with medians and 95th percentiles in milliseconds
of processor time, which other work on the machine does not add to. The whole graph includes reading the reply strictly, a
review by the checks, and a self-critique; the import of the graph library, once per process, stands apart.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.domain.tenant import PlannerRules
from engine.plan import check_plan
from planner_graph.lowering import Lowered, lower, proposal_schema
from planner_graph.model_calls import Answered
from planner_graph.model_calls.replies import read_reply
from tests.support.planning import Planning, ScriptedGateway, answered, routed
from tests.unit.planner_graph.proposals import given, proposal, proposed, ref


def wide_and_deep(steps: int) -> dict[str, Any]:
    """A proposal in layers of five, each step using two of the layer before."""
    made = []
    for index in range(steps):
        layer = index - index % 5
        inputs = [given("n", index)] if layer == 0 else [ref("n", f"steps.s{layer - 5 + index % 5}#/n")]
        more = {} if layer == 0 else {"needs": [f"s{layer - 5 + (index + 1) % 5}"]}
        made.append(proposed(f"s{index}", "calc.double", *inputs, **more))
    return proposal(*made)


async def measured(rounds: int, work: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Processor time of one piece of work in milliseconds."""
    for _ in range(5):
        await work()
    took = []
    for _ in range(rounds):
        started = time.process_time()
        await work()
        took.append((time.process_time() - started) * 1000)
    return {"p50_ms": round(statistics.median(took), 2), "p95_ms": round(statistics.quantiles(took, n=20)[18], 2)}


async def bench(steps: int, rounds: int) -> dict[str, Any]:
    """All figures."""
    reply = answered(wide_and_deep(steps))
    nothing = answered({"findings": []})

    def read(_: object) -> Answered:
        value, violations = read_reply(reply.text, proposal_schema())
        assert not violations
        return dataclasses.replace(reply, value=value)

    planning = Planning(ScriptedGateway(classify=routed("calc.double"), plan=read, self_critique=nothing))
    planning.tenant = planning.tenant.model_copy(update={"planner": PlannerRules(self_critique="always")})
    lowered = lower(reply.value)
    assert isinstance(lowered, Lowered)
    document = lowered.document
    catalog = planning.world.deps.catalog

    async def validate() -> None:
        assert check_plan(document, tenant=planning.tenant, catalog=catalog).ok

    async def lowering() -> None:
        lower(reply.value)

    async def graph() -> None:
        planning.gateway.asked.clear()
        planning.gateway.schemas.clear()
        outcome = await planning.propose()
        assert outcome.source == "model"

    started = time.process_time()
    await graph()
    first_ms = (time.process_time() - started) * 1000
    return {
        "steps": steps,
        "rounds": rounds,
        "first_graph_with_import_ms": round(first_ms, 1),
        "lower": await measured(rounds, lowering),
        "validate": await measured(rounds, validate),
        "whole_graph": await measured(rounds, graph),
        "targets_ms": {"validate_p50": 25, "whole_graph_p50": 60},
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(bench(options.steps, options.rounds))))


if __name__ == "__main__":
    main()
