"""What a circuit saves in an outage of 120 s, in virtual time: several processes over one shared entity, some callers die.

    .venv/bin/python -m bench.breaker --seed 1

Prints one JSON object. Calls of one capability arrive at ``calls_per_s`` at processes that have a copy of the circuit each (the
real `EntityCircuits`) over the real entity. ``hits`` are calls that reached the dead agent, of ``offered`` during the outage;
``recovered_s`` is from the end of the outage to the closed circuit; ``stopped_after`` is how many failures came before the first
call that was held off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from typing import Any, cast

from engine.adapters.circuits import EntityCircuits
from engine.adapters.memory import FixedClock
from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.tenant import TenantConfig
from entities.circuit_breaker import circuit_breaker

TENANT = TenantConfig(tenant_id="bench", display_name="Bench")
CAPABILITY = Capability(
    name="bench.call", version="1.0.0", title="Call", description="A call.", delivery="http", endpoint="bench",
    input_schema={"type": "object"}, output_schema={"type": "object"},
)  # fmt: skip
OUTAGE_S = (30.0, 150.0)
END_S = 300.0
DIES = 0.03


class _Operation:
    """One operation as the SDK hands it to an entity."""

    entity_key = "bench.call--any"

    def __init__(self, operation: str, value: JsonObject, state: Any) -> None:
        self.operation_name, self._value, self.state = operation, value, state

    def get_input(self) -> Any:
        return self._value

    def get_state(self) -> Any:
        return self.state

    def set_state(self, state: Any) -> None:
        self.state = state

    def set_result(self, result: Any) -> None: ...


class SharedEntity:
    """The entity in memory, one operation at a time."""

    def __init__(self, clock: FixedClock) -> None:
        self._clock, self.state, self.operations, self.most_probes = clock, cast(Any, None), 0, 0

    def use(self, client: object) -> None: ...

    async def signal(self, name: str, key: str, operation: str, value: JsonObject) -> None:
        context = _Operation(operation, value, self.state)
        circuit_breaker(cast(Any, context), int(self._clock.now().timestamp() * 1_000))
        self.state, self.operations = context.state, self.operations + 1
        self.most_probes = max(self.most_probes, len(self.state["probes"]))

    async def read(self, name: str, key: str) -> JsonObject | None:
        state: JsonObject | None = self.state
        return state


class Silent:
    """No telemetry."""

    def count(self, name: str, value: int = 1, attributes: Any = None) -> None: ...


async def measure(seed: int, processes: int = 4, calls_per_s: float = 5.0) -> dict[str, Any]:
    """One outage."""
    clock, chooser = FixedClock(), random.Random(seed)
    entity, began = SharedEntity(clock), clock.now()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    fleet = [EntityCircuits(entity, clock, cast(Any, Silent()), sleep=sleep) for _ in range(processes)]
    offered = hits = calls = 0
    stopped_after: int | None = None
    recovered_s: float | None = None
    while (now_s := (clock.now() - began).total_seconds()) < END_S:
        clock.advance(chooser.expovariate(calls_per_s))
        circuits, calls = chooser.choice(fleet), calls + 1
        passed = await circuits.permit(TENANT, CAPABILITY, f"call-{calls}")
        is_down = OUTAGE_S[0] <= now_s < OUTAGE_S[1]
        offered, hits = offered + is_down, hits + (is_down and passed.granted)
        if not passed.granted:
            stopped_after = hits if stopped_after is None else stopped_after
        elif chooser.random() >= DIES:
            await circuits.report(passed, "failure" if is_down else "success")
        if now_s >= OUTAGE_S[1] and recovered_s is None and entity.state["phase"] == "closed":
            recovered_s = round(now_s - OUTAGE_S[1], 1)
    return {
        "seed": seed,
        "processes": processes,
        "calls_per_s": calls_per_s,
        "outage_s": OUTAGE_S[1] - OUTAGE_S[0],
        "callers_that_die_percent": DIES * 100,
        "calls": calls,
        "offered": offered,
        "hits": hits,
        "stopped_after": stopped_after,
        "most_probes_at_once": entity.most_probes,
        "recovered_s": recovered_s,
        "entity_operations": entity.operations,
        "state_bytes": len(json.dumps(entity.state)),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--calls-per-s", type=float, default=5.0)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.seed, options.processes, options.calls_per_s))))


if __name__ == "__main__":
    main()
