"""Planning over the wire: the real client, a scripted provider, the real graph, and what a run is told of it."""

import asyncio
import json
import logging
from collections import Counter

import pytest

from engine.domain.errors import LivoaError
from engine.domain.run import Document, RunContext
from engine.domain.status import RunStatus
from engine.domain.tenant import ModelChoice, PlannerRules
from engine.plan import check_plan
from tests.integration.planner.conftest import BAD, GOOD
from tests.support.hostile import hostile
from tests.support.model_server import (
    as_json,
    failure,
    filtered_prompt,
    rate_limited,
    refused,
    text,
    truncated,
)
from tests.unit.planner_graph.proposals import given, proposal, proposed


def works(server):
    return [(request.work, request.model) for request in server.requests]


async def test_a_run_is_planned_by_a_model_in_the_providers_strict_subset(world, server):
    world.answers()
    answer = await world.submit(None)
    assert answer["status"] == "planned"
    facts = await world.facts()
    assert (facts["source"], facts["model"], facts["router"], facts["attempts"]) == ("model", "gpt", "small", 1)
    assert works(server) == [("livoa_route", "small"), ("livoa_plan_proposal", "gpt")]
    assert all(request.body["response_format"]["json_schema"]["strict"] is True for request in server.requests)
    run = await world.runs.get("contoso", "run-1")
    assert (run.degraded, run.provenance.model) == (False, "gpt")
    state = await world.deps.budgets.state("contoso", "run-1")
    assert state.spent_micro_usd > 0
    assert state.reserved_micro_usd == 0


async def test_the_same_intent_is_planned_three_ways(world, server):
    world.answers()
    await world.submit(None)
    first = await world.facts()
    assert (first["model"], first["router"]) == ("gpt", "small")

    server.script(lambda request: failure(503, "down"), model="small")
    server.script(lambda request: failure(503, "down"), model="gpt")
    await world.submit(None, run_id="run-2")
    run = await world.runs.get("contoso", "run-2")
    assert (run.provenance.model, run.provenance.router, run.degraded) == ("open", "open", False)
    assert run.provenance.fallbacks == ("small: model.unavailable",)

    server.script(lambda request: failure(503, "down"))
    await world.submit(None, run_id="run-3")
    run = await world.runs.get("contoso", "run-3")
    assert (run.provenance.source, run.provenance.playbook, run.provenance.router) == (
        "playbook",
        "double_it",
        "lexical",
    )
    told = [hop for hop in run.provenance.fallbacks if not hop.startswith("embedding")]
    assert [hop.split(":")[0] for hop in told] == ["small", "open"]
    assert run.degraded_reason.startswith("model.")


async def test_a_tenant_without_models_is_served_as_before(world, server):
    world.tenant = world.tenant.model_copy(update={"models": ModelChoice()})
    await world.submit(None)
    run = await world.runs.get("contoso", "run-1")
    assert (run.provenance.playbook, run.degraded_reason) == ("double_it", "no model is configured")
    assert server.requests == []


@pytest.mark.parametrize(
    "nonsense",
    [
        text("marketing, I think"),
        as_json({"domain": "calc", "capabilities": [], "in_scope": True, "confidence": 0.9}),
        as_json(
            {"domain": "x", "capabilities": [{"name": "calc.secret", "score": 1}], "in_scope": True, "confidence": 1}
        ),
    ],
)
async def test_a_router_that_answers_nonsense_hands_on_to_the_next_deployment(world, server, nonsense):
    world.answers()
    server.script(lambda request: nonsense, work="livoa_route", model="small")
    await world.submit(None)
    facts = await world.facts()
    assert (facts["router"], facts["fallbacks"]) == ("open", ["small: model.invalid_output"])

    server.script(lambda request: nonsense, work="livoa_route", model="open")
    await world.submit(None, run_id="run-2")
    made = (await world.runs.get("contoso", "run-2")).provenance
    assert (made.router, made.model) == ("lexical", "gpt")
    assert made.fallbacks[:2] == ("small: model.invalid_output", "open: model.invalid_output")


@pytest.mark.parametrize(
    "first", [BAD, text("I would love to help!"), truncated('{"cannot": null, "goal"'), text("{}")]
)
async def test_what_is_no_good_plan_goes_back_once_and_comes_back_good(world, server, first):
    world.answers(planner=[first, GOOD])
    assert (await world.submit(None))["status"] == "planned"
    assert (await world.facts())["attempts"] == 2
    last = server.requests[-1].body["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user"]


async def test_a_model_that_never_gets_it_right_is_given_up(world, server):
    world.answers(planner=BAD)
    await world.submit(None)
    facts = await world.facts()
    assert (facts["source"], facts["playbook"], facts["attempts"]) == ("playbook", "double_it", 4)
    assert len(works(server)) == 1 + 3


@pytest.mark.parametrize(
    ("answer", "code"),
    [(filtered_prompt(), "model.content_filtered"), (refused(), "model.refused"), (failure(401), "model.unauthorised")],
)
async def test_a_provider_that_will_not_has_the_playbook_instead(world, answer, code):
    world.answers(planner=answer)
    await world.submit(None)
    run = await world.runs.get("contoso", "run-1")
    assert (run.provenance.playbook, run.degraded_reason) == ("double_it", code)


async def test_a_pause_that_the_provider_asks_for_is_kept(world, server):
    world.answers(planner=[rate_limited(1), GOOD])
    assert (await world.submit(None))["status"] == "planned"
    assert works(server)[1:] == [("livoa_plan_proposal", "gpt")] * 2


async def test_a_self_critique_and_its_revision_over_the_wire(world, server):
    world.tenant = world.tenant.model_copy(update={"planner": PlannerRules(self_critique="always")})
    found = {"findings": [{"kind": "cost", "step_id": "a", "message": "one is enough"}]}
    both = proposal(*(proposed(name, "calc.double", given("n", 3)) for name in "ab"), uses=["a"])
    world.answers(planner=[as_json(both), GOOD])
    server.script(lambda request: as_json(found), work="livoa_critique")
    assert (await world.submit(None))["status"] == "planned"
    assert (await world.facts())["steps"] == 1
    assert [work for work, _ in works(server)] == [
        "livoa_route",
        "livoa_plan_proposal",
        "livoa_critique",
        "livoa_plan_proposal",
    ]


# ---- twice ----


async def test_a_crash_before_the_plan_is_stored_pays_once(world, server):
    world.answers(planner=[BAD, GOOD])
    put, calls = world.runs.change, []

    async def dying(*args, **kwargs):
        change = args[2]
        if change.plan_ref is not None and not calls:
            calls.append(change)
            raise LivoaError("store.unavailable", "down", status=503)
        return await put(*args, **kwargs)

    world.runs.change = dying
    assert (await world.submit(None))["code"] == "store.unavailable"
    before = (works(server), await world.deps.budgets.state("contoso", "run-1"))
    answer = await world.again()
    assert answer["status"] == "planned"
    assert (works(server), await world.deps.budgets.state("contoso", "run-1")) == before
    assert len(before[0]) == 3
    assert (await world.runs.get("contoso", "run-1")).status is RunStatus.RUNNING


async def test_a_budget_that_is_used_up_asks_no_model(world, server):
    world.answers()
    bounds = world.tenant.bounds.model_copy(update={"max_cost_micro_usd": 150})
    world.tenant = world.tenant.model_copy(update={"bounds": bounds})
    await world.submit(None)
    assert server.requests == []
    run = await world.runs.get("contoso", "run-1")
    assert (run.provenance.playbook, run.degraded_reason) == ("double_it", "budget.exhausted")


async def test_many_runs_at_once_share_one_graph(world):
    world.answers()
    answers = await asyncio.gather(*(world.submit(None, run_id=f"run-{number}") for number in range(10)))
    assert [answer["status"] for answer in answers] == ["planned"] * 10


# ---- what may be seen ----

CANARY = "kestrel-canary-5511"


async def test_no_prompt_and_no_completion_leaves_by_another_door_than_the_evidence(world, server, caplog, monkeypatch):
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_ENDPOINT", "http://127.0.0.1:9")
    caplog.set_level(logging.DEBUG)
    said = f"reply-{CANARY}"
    world.tenant = world.tenant.model_copy(
        update={"planner": PlannerRules(self_critique="never", reads_documents=True)}
    )
    wrong = proposal(proposed("a", "calc.double", given("n", said)))
    world.answers(planner=[as_json(wrong), text(said), as_json(proposal(proposed("a", "calc.double", given("n", 3))))])
    context = RunContext(values={"x": 1}, documents=(Document(name="brief", text=f"document {CANARY}"),))
    answer = await world.submit(None, context=context)
    assert answer["status"] == "planned"
    assert any(CANARY in request.prompt for request in server.requests)
    log = await world.deps.events.read("contoso", "run-1", after_seq=0, limit=100)
    audit = await world.deps.audit.read("contoso", after_seq=0, limit=100)
    spans = [(span.name, span.attributes, span.failed) for span in world.telemetry.spans]
    seen = [
        json.dumps(answer),
        json.dumps([event.model_dump(mode="json") for event in log]),
        json.dumps([record.model_dump(mode="json") for record in audit]),
        repr(spans),
        "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records),
        (await world.runs.get("contoso", "run-1")).model_dump_json(),
    ]
    assert not [place for place, words in enumerate(seen) if CANARY in words]
    assert {"planner.prompt", "planner.completion"} <= {record.type.value for record in audit}


async def test_the_router_and_the_prompt_files_are_on_record(world):
    world.answers()
    await world.submit(None)
    audit = await world.deps.audit.read("contoso", after_seq=0, limit=100)
    prompts = [record.body for record in audit if record.type.value == "planner.prompt"]
    assert len(prompts) == 2
    assert "classify@1" in json.dumps(prompts[0])
    assert "plan@1+request@1" in json.dumps(prompts[1])


# ---- hostile output ----


async def test_hostile_output_over_the_wire_ends_every_run_in_bounds(world, server):
    """200 mutations as a provider would send them: every run ends in a checked plan or in a refusal with its code."""
    texts = iter([hostile(seed) for seed in range(200)])
    asked: list[str] = []

    def planner(request):
        asked.append(request.prompt)
        return text(next(texts, "{}").encode("utf-8", "replace").decode())

    world.answers()
    server.script(planner, work="livoa_plan_proposal")
    outcomes = Counter()
    for number in range(60):
        before = len(asked)
        answer = await world.submit(None, run_id=f"run-{number}")
        outcomes[answer["status"]] += 1
        # Three questions at most; an empty reply may be asked for again before it counts as one.
        assert len(set(asked[before:])) <= 3
        assert len(asked) - before <= 12
        run = await world.runs.get("contoso", f"run-{number}")
        assert (run.plan_ref is not None) == (answer["status"] == "planned")
        if run.plan_ref is not None:
            plan = json.loads(await world.deps.payloads.get("contoso", run.run_id, run.plan_ref))
            assert check_plan(plan, tenant=world.tenant, catalog=world.deps.catalog).ok
    assert len(asked) >= 150
    assert set(outcomes) <= {"planned", "failed"}
