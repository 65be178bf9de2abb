"""A bare graph orchestrator and its activity: what the embedded host costs without policy, audit, event log and stores.

The orchestrator starts a step when its parents have answered, with the nudge that start-when-ready needs under the sequential
action walk of the durable extension (ADR 0001), and nothing else: no retries, no timeouts, no caps. It is for measurements.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from azure.durable_functions import Orchestrator

from bench import peer_cases

Act = Callable[[str, list[int]], Awaitable[int]]
"""What a step does with its id and its parents' answers."""


async def no_op(step: str, of_parents: list[int]) -> int:
    """Nothing but the answer that proves the edges."""
    return peer_cases.answer(step, of_parents)


class GraphApp:
    """The functions of an app with one orchestrator per graph and the activity `step`."""

    def __init__(self, graphs: Mapping[str, peer_cases.Graph], act: Act = no_op) -> None:
        self._wrappers: dict[str, Callable[[str], str]] = {
            name: Orchestrator.create(_orchestrator(graph)) for name, graph in graphs.items()
        }
        self._act = act

    def has_orchestrator(self, name: str) -> bool:
        return name in self._wrappers

    def has_activity(self, name: str) -> bool:
        return name == "step"

    def has_entity(self, name: str) -> bool:
        return False

    def orchestrator(self, name: str) -> Callable[[str], str]:
        return self._wrappers[name]

    def entity(self, name: str) -> Callable[[str], str]:
        raise KeyError(name)

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        step, of_parents = json.loads(input_json or "null")
        return json.dumps(await self._act(step, of_parents))


def _orchestrator(graph: peer_cases.Graph) -> Callable[[Any], Generator[Any, Any, int]]:
    children: dict[str, list[str]] = {step: [] for step in graph}
    for step, parents in graph.items():
        for parent in parents:
            children[parent].append(step)
    roots = [step for step, parents in graph.items() if not parents]

    def run_graph(context: Any) -> Generator[Any, Any, int]:
        """Start when ready; the answer is the digest of the run."""
        missing = {step: len(parents) for step, parents in graph.items()}
        answers: dict[str, int] = {}
        pool: dict[Any, str] = {}
        fresh: Sequence[str] = roots
        while True:
            older = len(pool)
            for step in fresh:
                task = context.call_activity("step", [step, [answers[parent] for parent in graph[step]]])
                pool[task] = step
            if not pool:
                return peer_cases.digest(graph, answers)
            listed = [*pool]
            if older and fresh:
                nudge = context.create_timer(context.current_utc_datetime + timedelta(days=5))
                nudge.cancel()
                listed.append(nudge)
            winner = yield context.task_any(listed)
            fresh = []
            done = pool.pop(winner, None)
            if done is None:
                continue
            answers[done] = winner.result
            for child in children[done]:
                missing[child] -= 1
                if not missing[child]:
                    fresh.append(child)

    return run_graph
