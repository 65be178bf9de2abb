"""Looking at plans and routes over HTTP: the same code as a run, without the run."""

import json

import pytest

from engine.domain.errors import Violation
from engine.domain.policy import Cure, PlanPolicyDecision, PolicyDecision, PolicyFinding, Verdict
from engine.domain.principal import Role
from engine.domain.run import MAX_INTENT_CHARS
from engine.ports.planner import NoPlan, PlanProposal, Ranked, Route, RouteHop
from tests.unit.triggers.world import PLAN, World

ROUTE = Route(
    "test", (Ranked("test.echo", 0.8),), True, 0.8, "lexical", fallbacks=(RouteHop("small", "model.timeout"),)
)
ATTEMPT = (Violation(code="plan.input_type", pointer="/steps/0/inputs/0/value", message="no"),)


class Planner:
    """Proposes the sample plan and keeps what it was asked."""

    def __init__(self, outcome=None, world=None):
        self.outcome = outcome or PlanProposal(
            PLAN, "model", route=ROUTE, model="gpt", violations_by_attempt=(ATTEMPT,)
        )
        self.tasks = []
        self.accounts = []
        self.world = world

    async def propose(self, task, review):
        self.tasks.append(task)
        self.accounts.append(await self.world.deps.budgets.state(task.tenant.tenant_id, task.run_id))
        await self.world.deps.budgets.reserve(task.tenant.tenant_id, task.run_id, "model/x", amount_micro_usd=5)
        return self.outcome

    async def route(self, task):
        self.tasks.append(task)
        return ROUTE


def with_planner(outcome=None):
    world = World()
    planner = Planner(outcome, world)
    world.with_deps(planner=planner)
    return world, planner


async def test_an_intent_is_planned_and_not_run():
    world, planner = with_planner()
    body = {"intent": "echo hello", "context": {"values": {"n": 3}}, "constraints": {"max_cost_micro_usd": 700}}
    answer = await world.post("/api/plans", body)
    assert (answer.status, answer.json["ok"]) == (200, True)
    told = answer.json
    assert told["planner"] == {
        "source": "model",
        "playbook": None,
        "model": "gpt",
        "router": "lexical",
        "fallbacks": ["small: model.timeout"],
        "attempts": 2,
    }
    assert told["route"]["capabilities"] == [{"name": "test.echo", "score": 0.8}]
    assert told["violations_by_attempt"] == [[ATTEMPT[0].model_dump()]]
    assert told["decision"]["verdict"] == "allow"
    assert told["critical_path"] == ["first", "second"]
    assert told["plan"]["steps"][0]["id"] == "first"
    assert await world.is_untouched()
    assert planner.tasks[0].request.context.values == {"n": 3}


async def test_what_models_cost_counts_for_the_tenant_and_nothing_stays_set_aside():
    world, planner = with_planner()
    await world.post("/api/plans", {"intent": "echo", "constraints": {"max_cost_micro_usd": 700}})
    (account,) = planner.accounts
    assert account.limit_micro_usd == 700
    state = await world.deps.budgets.state("contoso", planner.tasks[0].run_id)
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 5)
    day = await world.deps.budgets.daily_state("contoso", world.clock.now().date())
    assert day.spent_micro_usd == 5


async def test_previews_do_not_share_an_account():
    world, planner = with_planner()
    for _ in range(2):
        await world.post("/api/plans", {"intent": "echo"})
    assert len({task.run_id for task in planner.tasks}) == 2


async def test_a_refusal_says_what_could_be_asked_instead():
    world, _ = with_planner(NoPlan("plan.no_capability", "nothing fits", ("Echo: “say it”",), route=ROUTE))
    answer = await world.post("/api/plans", {"intent": "tell me a joke"})
    assert (answer.status, answer.json["ok"]) == (200, False)
    expected = {"code": "plan.no_capability", "message": "nothing fits", "suggestions": ["Echo: “say it”"]}
    assert answer.json["refusal"] == expected


async def test_a_decision_shows_paths_and_what_would_need_approval():
    finding = PolicyFinding(
        policy_id="plat.taint", severity="curable", message="who decides?", step_id="second",
        path=("run#/context/documents/0/text", "steps.second.inputs/text"), cure=Cure(kind="approval", detail="four-eyes"),
    )  # fmt: skip

    class Engine:
        async def decide_plan(self, request):
            own = PolicyDecision(verdict=Verdict.ESCALATE, cures=(finding.cure,), findings=(finding,))
            steps = {"first": PolicyDecision(verdict=Verdict.ALLOW), "second": own}
            return PlanPolicyDecision(verdict=Verdict.ALLOW, steps=steps)

    world = World()
    world.with_deps(policy=Engine())
    decision = (await world.post("/api/plans", PLAN)).json["decision"]
    assert decision["approvals"] == ["second"]
    assert decision["steps"]["second"]["findings"][0]["path"][0] == "run#/context/documents/0/text"


async def test_planning_an_intent_needs_the_right_to_submit():
    world, _ = with_planner()
    reader = world.token(roles=(Role.RUNS_READ,))
    assert (await world.post("/api/plans", PLAN, token=reader)).status == 200
    assert (await world.post("/api/plans", {"intent": "x"}, token=reader)).code == "auth.role_missing"
    assert (await world.post("/api/route", {"intent": "x"}, token=reader)).code == "auth.role_missing"


async def test_an_intent_is_routed():
    world, _ = with_planner()
    answer = await world.post("/api/route", {"intent": "echo hello"})
    assert answer.status == 200
    assert answer.json == {
        "domain": "test",
        "capabilities": [{"name": "test.echo", "score": 0.8}],
        "in_scope": True,
        "confidence": 0.8,
        "router": "lexical",
        "playbooks": [],
        "fallbacks": [{"router": "small", "reason": "model.timeout"}],
    }
    assert await world.is_untouched()


@pytest.mark.parametrize("target", ["/api/plans", "/api/route"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"intent": ""}, "request.invalid"),
        ({"intent": 3}, "request.invalid"),
        ({"intent": "x", "goal": "y"}, "request.invalid"),
        ({"intent": "x" * (MAX_INTENT_CHARS + 1)}, "request.invalid"),
        ({"intent": "  "}, "request.invalid"),
    ],
)
async def test_a_request_that_is_none_is_refused(target, body, code):
    world, planner = with_planner()
    answer = await world.post(target, body)
    assert (answer.status, answer.code) == (422, code)
    assert planner.tasks == []


@pytest.mark.parametrize("document", [None, [], "plan", 3, {}, {"goal": 3}, {"goal": "x" * 9_000, "steps": []}])
async def test_whatever_is_no_plan_has_findings_and_asks_no_planner(document):
    world, planner = with_planner()
    answer = await world.post("/api/plans", json.dumps(document).encode())
    assert (answer.status, answer.json["ok"]) == (200, False)
    assert answer.json["errors"]
    assert planner.tasks == []


async def test_an_intent_with_its_own_plan_is_looked_at_with_its_context():
    world, planner = with_planner()
    answer = await world.post("/api/plans", {"intent": "echo", "plan": PLAN})
    assert (answer.json["ok"], answer.json["planner"]["source"]) == (True, "caller")
    assert planner.tasks == []
