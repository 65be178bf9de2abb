"""Hostile model output never crashes planning, never makes it go round, and never becomes a plan that nobody checked."""

import dataclasses
import json
import time

import pytest

from engine.domain.errors import Violation
from engine.domain.policy import PlanPolicyDecision, Verdict
from engine.plan import check_plan
from engine.ports.planner import NoPlan, PlanProposal
from planner_graph.edges import longest_path
from planner_graph.lowering import Declined, Lowered, Rejected, lower, proposal_schema
from planner_graph.model_calls import Answered, Unanswered
from planner_graph.model_calls.replies import read_reply
from tests.support.hostile import hostile
from tests.support.planning import FACTS, Planning, ScriptedGateway, routed
from tests.support.world import World

MUTATIONS = 5_000
THROUGH_THE_GRAPH = 100
BLOCKS = 10


@pytest.mark.parametrize(
    "block", [0, 1, *(pytest.param(block, marks=pytest.mark.thorough) for block in range(2, BLOCKS))]
)
def test_every_mutation_is_read_or_refused_within_bounds(block):
    """5,000 seeded mutations, 1,000 of them every day: parsed strictly as the gateway does, lowered even so, then checked."""
    world = World()
    counts = {Lowered: 0, Rejected: 0, Declined: 0, "not JSON": 0, "accepted": 0}
    started = time.process_time()
    for seed in range(block, MUTATIONS, BLOCKS):
        text = hostile(seed)
        value, violations = read_reply(text, proposal_schema())
        if violations:
            counts["not JSON"] += 1
            assert all(found.code and len(found.message) < 1_000 for found in violations)
            try:
                value = json.loads(text)
            except ValueError:
                continue
        # Lowering holds on its own, also for what the schema check has refused.
        lowered = lower(value)
        counts[type(lowered)] += 1
        if isinstance(lowered, Rejected):
            assert 0 < len(lowered.violations) <= 50
            assert all(isinstance(found, Violation) for found in lowered.violations)
        if isinstance(lowered, Lowered):
            result = check_plan(lowered.document, tenant=world.tenant, catalog=world.deps.catalog)
            counts["accepted"] += result.ok
            assert all(found.code for found in lowered.told(result.violations))
            if result.plan is not None:
                assert set(result.plan.capability_names) <= set(world.tenant.enabled_capabilities)
    assert min(counts[Lowered], counts[Rejected], counts["not JSON"], counts["accepted"]) > 0, counts
    assert time.process_time() - started < 60


def as_asked(text):
    """What the gateway would say about this text."""
    value, violations = read_reply(text, proposal_schema())
    if violations:
        return Unanswered("model.invalid_output", repairable=True, text_for_repair=text[:20_000], violations=violations)
    return Answered(value=value, text=text, reply=FACTS)


async def test_no_mutation_goes_round_or_skips_the_checks():
    planning = Planning(ScriptedGateway())
    accepted = refused = 0
    for seed in range(THROUGH_THE_GRAPH):
        answers = [as_asked(hostile(seed * 10 + number)) for number in range(4)]
        planning.gateway = ScriptedGateway(
            classify=routed("calc.double"),
            plan=answers[0],
            repair=answers[1:],
            revise=answers[3],
            self_critique=answers[2],
        )
        planning.planner._gateway = planning.gateway
        planning.reviewed = []
        outcome = await planning.propose()
        assert len(planning.gateway.nodes) <= longest_path(2)
        if isinstance(outcome, PlanProposal):
            accepted += 1
            assert outcome in planning.reviewed
            assert check_plan(outcome.document, tenant=planning.tenant, catalog=planning.world.deps.catalog).ok
        else:
            refused += 1
            assert isinstance(outcome, NoPlan)
            assert outcome.code in (
                "plan.unplannable",
                "plan.no_capability",
                "plan.missing_values",
                "plan.unclear_intent",
            )
    assert accepted > 10
    assert refused > 10


async def test_an_outcome_that_a_planner_made_up_is_checked_again_before_it_counts():
    """Even a planner that never asks for a review gets its plan through no door but the checks and policy."""
    world = World()
    asked = []

    class Engine:
        async def decide_plan(self, request):
            asked.append(request)
            return PlanPolicyDecision(verdict=Verdict.ALLOW)

    class Careless:
        async def propose(self, task, review):
            return PlanProposal({"goal": "x", "steps": [{"id": "a", "capability": "calc.secret"}]}, "model")

    world.deps = dataclasses.replace(world.deps, planner=Careless(), policy=Engine())
    answer = await world.submit(None)
    assert (answer["status"], asked) == ("rejected", [])
