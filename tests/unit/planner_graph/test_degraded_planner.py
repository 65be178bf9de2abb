"""Without a model: the right playbook, filled from what was said, a plan that passes every check, or a clear no."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from engine.domain.capability import Capability
from engine.domain.playbook import Playbook
from engine.domain.run import RunContext, RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan import check_plan
from engine.ports.planner import NoPlan, PlanningTask, PlanProposal
from planner_graph.degraded import DegradedPlanner
from planner_graph.routing import CatalogRouters

CATALOG = Path(__file__).resolve().parents[3] / "catalog"


def _load(folder, model):
    return [
        model.model_validate(yaml.safe_load(path.read_text())) for path in sorted((CATALOG / folder).glob("*.yaml"))
    ]


class _Catalog:
    version = "test"
    capabilities = {c.name: c for c in _load("capabilities", Capability)}
    playbooks = {p.name: p for p in _load("playbooks", Playbook)}


class _Clock:
    def now(self):
        return datetime(2026, 11, 22, 12, tzinfo=UTC)


ROUTERS = CatalogRouters()
"""Shared, because each would learn the same catalog again."""
TENANTS = {t.tenant_id: t for t in _load("tenants", TenantConfig)}


async def propose(intent, tenant="contoso", **context):
    planner = DegradedPlanner(_Catalog(), _Clock(), routers=ROUTERS)
    request = RunRequest(intent=intent, context=RunContext(**context))
    deadline_at = datetime(2026, 11, 22, 13, tzinfo=UTC)
    task = PlanningTask(run_id="run-1", request=request, tenant=TENANTS[tenant], deadline_at=deadline_at)
    return await planner.propose(task, accepted)


async def accepted(proposal):
    return ()


@pytest.mark.parametrize(
    ("intent", "playbook"),
    [
        ("Why did paid-search ROI fall in Q3 and how should Q4 budget move?", "return_and_budget"),
        ("Paid social pays back less than in spring. Where should next quarter's money go?", "return_and_budget"),
        ("What changed last quarter in sales?", "explain_change"),
        ("did cost per click rise compared with the quarter before", "explain_change"),
        ("show me clicks by channel in 2025", "performance_report"),
        ("total spend in June please", "performance_report"),
        ("which channel brought the most sales in 2025", "performance_report"),
        ("is tv worth it?", "channel_returns"),
        ("which channels are saturated right now", "channel_returns"),
        ("split 800k over channels", "plan_budget"),
        ("optimise our Q1 media budget", "plan_budget"),
        ("what do documents say on newsletters", "find_notes"),
        ("Anything in our notes about measuring television?", "find_notes"),
        ("any post-mortem about the summer campaign?", "find_notes"),
        ("100 pounds in euro", "exchange_rate"),
    ],
)
async def test_an_intent_finds_its_playbook_and_the_plan_passes_every_check(intent, playbook):
    proposal = await propose(intent)
    assert isinstance(proposal, PlanProposal)
    assert proposal.playbook == playbook
    assert proposal.degraded_reason
    result = check_plan(proposal.document, tenant=TENANTS["contoso"], catalog=_Catalog())
    assert result.ok, result.violations


@pytest.mark.parametrize(
    "intent",
    [
        "book me a flight to Paris",
        "write a poem about the sea",
        "what is the weather tomorrow",
        "reset my password",
        "delete all customer records",
        "order 20 laptops for the team",
        "summarise our legal contracts",
        "¿",
        "1234567",
    ],
)
async def test_what_nobody_can_do_is_said_clearly_with_what_could_be_asked(intent):
    outcome = await propose(intent)
    assert isinstance(outcome, NoPlan)
    assert outcome.code == "plan.no_capability"
    assert len(outcome.suggestions) == len(_Catalog.playbooks)


async def test_a_tenant_is_offered_only_what_it_has_enabled():
    outcome = await propose("100 pounds in euro", tenant="fabrikam")
    assert isinstance(outcome, NoPlan)
    assert not any("exchange" in suggestion.lower() for suggestion in outcome.suggestions)
    assert any("changed" in suggestion for suggestion in outcome.suggestions)


async def test_a_playbook_that_a_tenant_has_not_enabled_plans_nothing_for_it(monkeypatch):
    confined = TENANTS["contoso"].model_copy(update={"enabled_playbooks": ("explain_change",)})
    monkeypatch.setitem(TENANTS, "contoso", confined)
    outcome = await propose("100 pounds in euro")
    assert isinstance(outcome, NoPlan)
    assert len(outcome.suggestions) == 1


async def test_periods_amounts_and_channels_come_from_the_words():
    proposal = await propose("Why did television ROI fall in Q2 2026 and how should we move 1.2 million of budget?")
    steps = {step["id"]: step for step in proposal.document["steps"]}
    assert steps["change"]["inputs"] == {
        "from": "2026-04-01",
        "to": "2026-06-30",
        "previous_from": "2026-01-01",
        "previous_to": "2026-03-31",
    }
    assert steps["allocation"]["inputs"]["total_budget"] == 1_200_000
    assert steps["findings"]["inputs"]["focus_channel"] == "tv"


@pytest.mark.parametrize("intent", ["What changed last quarter in sales?", "Why did sales fall in Q3?"])
async def test_findings_on_a_change_are_given_both_periods_and_their_total_sales(intent):
    proposal = await propose(intent)
    inputs = {step["id"]: step for step in proposal.document["steps"]}["findings"]["inputs"]
    told = ("from", "to", "previous_from", "previous_to", "sales", "previous_sales")
    parts = ("current/from", "current/to", "previous/from", "previous/to", "current/sales", "previous/sales")
    assert [inputs[name] for name in told] == [{"$ref": f"steps.change#/{part}"} for part in parts]
    result = check_plan(proposal.document, tenant=TENANTS["contoso"], catalog=_Catalog())
    assert result.ok, result.violations


async def test_what_was_not_said_is_left_out_not_guessed():
    proposal = await propose("Explain the drop in return last quarter and propose a better budget split")
    steps = {step["id"]: step for step in proposal.document["steps"]}
    assert "total_budget" not in steps["allocation"]["inputs"]
    assert "focus_channel" not in steps["findings"]["inputs"]


async def test_values_of_the_caller_win_and_stay_references():
    proposal = await propose("What changed last quarter in sales?", values={"period_from": "2026-01-01"})
    inputs = proposal.document["steps"][0]["inputs"]
    assert inputs["from"] == {"$ref": "run#/context/values/period_from"}
    assert inputs["to"] == "2026-09-30"


async def test_a_playbook_that_lacks_a_required_value_says_which():
    outcome = await propose("what is the exchange rate from pounds?")
    assert isinstance(outcome, NoPlan)
    assert outcome.code == "plan.missing_values"
    assert "quote" in outcome.message


async def test_the_same_request_gives_the_same_plan():
    first, second = [await propose("optimise our Q1 media budget") for _ in range(2)]
    assert first == second


async def test_text_that_looks_like_a_reference_stays_text():
    proposal = await propose('search our briefs and documents for notes on {"$ref": "run#/context/documents"} {$param}')
    result = check_plan(proposal.document, tenant=TENANTS["contoso"], catalog=_Catalog())
    assert result.ok
    assert proposal.document["steps"][0]["inputs"]["query"] == {"$ref": "run#/intent"}


async def test_a_vague_request_is_offered_choices_and_nothing_is_guessed():
    outcome = await propose("help me with marketing")
    assert isinstance(outcome, NoPlan)
    assert outcome.code == "plan.unclear_intent"
    assert 1 <= len(outcome.suggestions) <= 4
    assert outcome.route is not None
    assert outcome.route.in_scope


async def test_why_sales_fell_is_explained_without_moving_a_budget():
    proposal = await propose("Why did sales fall in Q3?")
    assert isinstance(proposal, PlanProposal)
    assert proposal.playbook == "explain_change"
    assert proposal.route.playbooks[0].name == "explain_change"


@pytest.mark.parametrize("method", ["propose", "route"])
async def test_a_router_that_has_to_learn_first_holds_nobody_up(method):
    others_went_on = threading.Event()
    router = ROUTERS.of(_Catalog(), TENANTS["contoso"])

    class Learning:
        playbooks, suggestions = router.playbooks, router.suggestions

        def route(self, intent, goals):
            assert others_went_on.wait(5)
            return router.route(intent, goals)

    class Routers:
        def of(self, catalog, tenant):
            return Learning()

    async def others():
        others_went_on.set()

    planner = DegradedPlanner(_Catalog(), _Clock(), routers=Routers())
    request, deadline_at = (
        RunRequest(intent="What changed last quarter in sales?"),
        datetime(2026, 11, 22, 13, tzinfo=UTC),
    )
    task = PlanningTask(run_id="run-1", request=request, tenant=TENANTS["contoso"], deadline_at=deadline_at)
    arguments = (task, accepted) if method == "propose" else (task,)
    await asyncio.gather(getattr(planner, method)(*arguments), others())


def test_a_router_is_trained_once_however_many_ask_first(monkeypatch):
    router = CatalogRouters().of(_Catalog(), TENANTS["contoso"])
    train, trained = router._train, []

    def counted():
        trained.append(1)
        return train()

    monkeypatch.setattr(router, "_train", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(router.route, ["What changed last quarter in sales?"] * 4))
    assert len(trained) == 1
    assert found == [found[0]] * 4
