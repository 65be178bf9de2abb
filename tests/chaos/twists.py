"""What some seeds add to a plan: questions to people, effects that can be undone, capabilities with a fallback.

Each twist draws from a source of its own, so that a seed without it is the plan it always was.
"""

from __future__ import annotations

import random
from typing import Any

from engine.domain.policy import PolicyDecision, StepPolicyRequest
from policy.builtin import BuiltinPolicyEngine
from tests.chaos.adversary import Adversary
from tests.chaos.plans import BOOK, CANARY, FRAIL, UNBOOK
from tests.chaos.repairs import make_repairable
from tests.support.policy import escalate

ASKED_FOR = frozenset({"chaos.send", UNBOOK, BOOK})
"""What policy wants a second person for, in seeds with people; undoing is never asked about."""


def twist(document: dict[str, Any], adversary: Adversary) -> None:
    """Change a plan document in place, as the families of the seed ask for."""
    chance = random.Random(f"twists/{adversary.seed}")
    calls = [step for step in document["steps"] if "capability" in step]
    if adversary.has("undo"):
        for step in _some(chance, [step for step in calls if step["capability"] == "chaos.work"], 5):
            _make_undoable(step)
    if adversary.has("fallback"):
        for step in _some(chance, [step for step in calls if step["capability"] in ("chaos.work", "chaos.slow")], 5):
            step |= {"capability": FRAIL, "on_failure": "fallback"}
    if adversary.has("repair"):
        make_repairable(document, adversary.seed)
    if adversary.has("people"):
        _add_questions(chance, document)


def _some(chance: random.Random, steps: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    return chance.sample(steps, k=min(len(steps), chance.randint(1, most)))


def _make_undoable(step: dict[str, Any]) -> None:
    given: Any = {"$ref": "item#/n" if "for_each" in step else f"steps.{step['id']}#/n"}
    step |= {"capability": BOOK, "compensate_with": {"capability": UNBOOK, "inputs": {"n": given, "note": CANARY}}}


def _add_questions(chance: random.Random, document: dict[str, Any]) -> None:
    """A question after one step and before another that comes later, so that no circle closes."""
    steps = sorted((step for step in document["steps"] if step["id"][1:].isdigit()), key=lambda s: int(s["id"][1:]))
    for index in range(chance.randint(1, 3)):
        place = chance.randrange(len(steps))
        asked = {"question": f"go on? {CANARY}", "timeout_s": chance.choice((20, 600, 3_000))}
        question: dict[str, Any] = {"id": f"ask{index}", "approval": asked}
        if place:
            question["needs"] = [steps[chance.randrange(place)]["id"]]
        if chance.random() < 0.3:
            question["optional"] = True
        steps[place]["needs"] = [*steps[place].get("needs", ()), question["id"]]
        document["steps"].append(question)


class FourEyes(BuiltinPolicyEngine):
    """The built-in rules, and one of a test: some capabilities need a second person."""

    async def decide_step(self, request: StepPolicyRequest) -> PolicyDecision:
        """See the port."""
        decision = await super().decide_step(request)
        asks = request.capability_name in ASKED_FOR and request.purpose != "compensation"
        cured = request.cures.approved and request.cures.approver_differs
        return escalate() if asks and not cured and decision.verdict == "allow" else decision
