"""A planner that repairs plans as a seed wants it: mostly well, sometimes not at all, sometimes against the rules."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from engine.ports.planner import NoPlan, PlanningTask, PlanProposal, Review, SuffixRepair
from planner_graph.degraded import DegradedPlanner
from tests.chaos.plans import CANARY, CATALOG

if TYPE_CHECKING:
    from tests.chaos.host import Host

MOODS = ("well", "well", "well", "well", "not", "changes", "reuses", "faulty")


def make_repairable(document: dict[str, Any], seed: int) -> None:
    """Let some calls have the plan repaired when they fail. Draws from a source of its own."""
    chance = random.Random(f"repairs/{seed}")
    calls = [step for step in document["steps"] if "capability" in step and step.get("on_failure") != "fallback"]
    for step in chance.sample(calls, k=min(len(calls), chance.randint(2, 10))):
        step["on_failure"] = "repair"
        if chance.random() < 0.6:
            step["retry"] = {"max_attempts": 1}


class Repairer(DegradedPlanner):
    """No model, but for repairs: then whatever comes to its mind. Every proposal has ids that nothing else ever had."""

    def __init__(self, host: Host) -> None:
        super().__init__(CATALOG, host.clock)
        self._host = host

    async def propose(self, task: PlanningTask, review: Review) -> PlanProposal | NoPlan:
        """See the port."""
        if task.repair is None or not self._host.adversary.has("repair"):
            return await super().propose(task, review)
        chance = self._host.adversary.chance
        await self._host.point("planner")
        await self._host.clock.sleep_s(chance.choice((0, 0.5, 20, 200)))
        await self._host.point("planner")
        mood = chance.choice(MOODS)
        if mood == "not":
            return NoPlan(code="plan.unplannable", message="no idea")
        document = _version(task.repair, mood, chance, f"r{self._host.observer.next()}x")
        return PlanProposal(document, "model", model="chaos")


def _version(repair: SuffixRepair, mood: str, chance: random.Random, prefix: str) -> dict[str, Any]:
    stays = {step.step_id for step in repair.finished}
    steps = [dict(step) for step in repair.plan["steps"] if step["id"] in stays]
    sources = [step for step in steps if "capability" in step and "for_each" not in step]
    added = [_step(f"{prefix}{index}", sources, chance) for index in range(chance.randint(1, 4))]
    if mood == "changes" and steps:
        steps[0] = steps[0] | {"optional": not steps[0].get("optional", False)}
    if mood == "reuses":
        added[0]["id"] = repair.failed_step_id
    if mood == "faulty":
        added[0]["inputs"] = {"n": "many"}
    uses = [step["id"] for step in added]
    return {"goal": f"goal {CANARY}", "steps": [*steps, *added], "answer": {"uses": uses}}


def _step(step_id: str, sources: list[dict[str, Any]], chance: random.Random) -> dict[str, Any]:
    number: Any = chance.randrange(5)
    if sources and chance.random() < 0.6:
        number = {"$ref": f"steps.{chance.choice(sources)['id']}#/n"}
        if chance.random() < 0.4:
            number["default"] = 1
    step = {
        "id": step_id,
        "capability": chance.choice(("chaos.work", "chaos.slow")),
        "inputs": {"n": number, "note": f"again {CANARY}"},
        "on_failure": chance.choice(("fail", "skip", "repair")),
    }
    if chance.random() < 0.3:
        rows = [{"n": n, "note": f"row {CANARY}"} for n in range(3)]
        inputs = {"n": {"$ref": "item#/n"}, "note": {"$ref": "item#/note"}}
        step |= {"for_each": rows, "inputs": inputs}
    return step
