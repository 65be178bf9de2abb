"""Repairing a plan that runs: checked, vetted, stored once; refused for good; whatever is delivered twice is decided once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from activities.repair_plan import repair_plan
from engine.adapters.memory import MemoryTenantDirectory
from engine.domain.approval import ApprovalAnswer, ApprovalStatus
from engine.domain.errors import LivoaError
from engine.domain.policy import Cure, PlanPolicyDecision, PlanPolicyRequest, PolicyDecision, StepPolicyRequest, Verdict
from engine.domain.run import PayloadRef, Run
from engine.domain.skeleton import from_wire
from engine.domain.status import RunStatus
from engine.domain.tenant import PlannerRules
from engine.ports.planner import NoPlan, PlanningTask, PlanProposal, Review
from engine.ports.run_store import RunChange
from engine.step_runner import StepTask, collect_map, expand_map, undo_step
from planner_graph.degraded import DegradedPlanner
from policy.builtin import BuiltinPolicyEngine
from tests.support.world import World, doubled, failing, plan_of, step

TASK = {"tenant_id": "contoso", "run_id": "run-1", "number": 1, "step_id": "a", "code": "agent.broken", "attempt": 1}
LATER = {"$ref": "steps.a#/n"}
PLAN = plan_of(
    step("kept", n=4),
    step("a", n=2, on_failure="repair", retry={"max_attempts": 1}),
    step("behind", n=LATER),
    step("last", n={"$ref": "steps.behind#/n", "default": 0}, needs=["kept"]),
)

Say = Callable[[PlanningTask], Any]


class Planner:
    """Proposes what a script says; ``tasks`` are those it was asked."""

    def __init__(self, *says: Say) -> None:
        self.says = list(says)
        self.tasks: list[PlanningTask] = []
        self.reviews: list[tuple[str, ...]] = []
        self.gate: asyncio.Event | None = None

    async def propose(self, task: PlanningTask, review: Review) -> PlanProposal | NoPlan:
        """See the port."""
        self.tasks.append(task)
        said = (self.says.pop(0) if len(self.says) > 1 else self.says[0])(task)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(said, PlanProposal):
            self.reviews.append(tuple(found.code for found in await review(said)))
        return said


def rest(*added: dict[str, Any], uses: list[str] | None = None, integrity: int = 3, **changed: Any) -> Say:
    """What stays, and these steps. ``changed`` replaces steps that should stay; None leaves one out."""

    def say(task: PlanningTask) -> PlanProposal:
        assert task.repair is not None
        stays = {kept.step_id for kept in task.repair.finished}
        old = [changed.get(one["id"], one) for one in task.repair.plan["steps"] if one["id"] in stays]
        document = plan_of(*(one for one in old if one is not None), *added, uses=uses)
        return PlanProposal(document, "model", model="gpt", seen_integrity=integrity)

    return say


ANOTHER = rest(step("other", n={"$ref": "steps.kept#/n"}), uses=["other"])


class Repairs:
    """A run whose step ``a`` has failed, and a planner."""

    def __init__(self, *says: Say, plan: dict[str, Any] = PLAN, **tenant: Any) -> None:
        self.world = World()
        self.planner = Planner(*(says or (ANOTHER,)))
        self.plan = plan
        self.world.tenant = self.world.tenant.model_copy(update=tenant)
        self.put(planner=self.planner, tenants=MemoryTenantDirectory([self.world.tenant]))

    def put(self, **deps: Any) -> None:
        self.world.deps = dataclasses.replace(self.world.deps, **deps)

    async def begin(self, *performed: str) -> Repairs:
        assert (await self.world.submit(self.plan))["status"] == "planned"
        for step_id in performed or ("kept",):
            assert (await self.world.perform(step_id)).status == "succeeded"
        for name in ("calc.double", "mail.send"):
            self.world.invoker.behaviours[name] = failing("agent.broken", retryable=False)
        assert (await self.world.perform("a")).status == "failed"
        for name in ("calc.double", "mail.send"):
            self.world.invoker.behaviours[name] = doubled
        return self

    async def repair(self, **task: Any) -> dict[str, Any]:
        return await repair_plan(TASK | task, self.world.deps)

    async def run(self) -> Run:
        run = await self.world.runs.get("contoso", "run-1")
        assert run is not None
        return run

    async def records(self, kind: str) -> list[Any]:
        log = await self.world.deps.audit.read("contoso", after_seq=0, limit=100)
        return [record for record in log if record.type.value == kind]

    async def payload(self, ref: PayloadRef) -> Any:
        return json.loads(await self.world.deps.payloads.get("contoso", "run-1", ref))


async def test_the_next_version_is_in_force_and_everything_about_it_is_on_record() -> None:
    at = await Repairs().begin()
    before = await at.run()
    answer = await at.repair()
    skeleton = from_wire(answer["skeleton"])
    assert [(one.id, one.needs) for one in skeleton.steps] == [("kept", ()), ("other", (0,))]
    run = await at.run()
    assert (run.status, run.plan_version, run.plan_hash) == (RunStatus.RUNNING, 2, skeleton.plan_hash)
    assert (run.plan_repair, run.repairs_decided, run.proposed_plan) == (1, 1, None)
    (earlier,) = run.earlier_plans
    assert (earlier.plan_version, earlier.plan_hash, earlier.plan_ref) == (1, before.plan_hash, before.plan_ref)
    assert earlier.provenance.source == "caller"
    assert run.provenance is not None
    assert (run.provenance.source, run.provenance.model) == ("model", "gpt")
    assert run.provenance.vetting_id not in ("", earlier.provenance.vetting_id)

    (record,) = await at.records("plan.repaired")
    assert record.body["plan_hash"] == run.plan_hash
    assert record.body["replaced_plan_hash"] == before.plan_hash
    assert (record.body["failed_step"], record.body["failed_code"]) == ("a", "agent.broken")
    assert record.body["verdict"] == "allow"
    counts = [record.body[f"steps_{name}"] for name in ("kept", "removed", "added")]
    assert counts == [1, 3, 1]
    diff = PayloadRef(sha256=record.body["diff_sha256"], size_bytes=record.body["diff_bytes"])
    assert await at.payload(diff) == {
        "kept": ["kept"],
        "removed": ["a", "behind", "last"],
        "added": ["other"],
    }
    assert run.plan_ref is not None
    assert [one["id"] for one in (await at.payload(run.plan_ref))["steps"]] == ["kept", "other"]
    log = await at.world.deps.events.read("contoso", "run-1", after_seq=0, limit=50)
    told = log[-1]
    assert told.type.value == "plan.repaired"
    assert (told.data["plan_version"], told.data["plan_hash"]) == (2, run.plan_hash)
    assert told.data["message"] == "a failed: 3 steps replaced by 1"


async def test_the_new_steps_run_on_what_the_kept_ones_left() -> None:
    at = await Repairs().begin()
    await at.repair()
    assert (await at.world.perform("other")).status == "succeeded"
    assert await at.world.output("other") == {"n": 16}


async def test_the_planner_is_told_what_stays_and_of_outputs_only_their_shape() -> None:
    at = await Repairs().begin()
    await at.repair()
    (task,) = at.planner.tasks
    assert task.plan_version == 2
    assert task.repair is not None
    assert (task.repair.failed_step_id, task.repair.failed_code) == ("a", "agent.broken")
    assert [(one.step_id, one.status, one.summary) for one in task.repair.finished] == [
        ("kept", "succeeded", {"output": {"n": "number"}})
    ]
    assert set(task.repair.taken) == {"kept", "a", "behind", "last"}


async def test_what_waits_or_runs_beside_the_failure_stays_too() -> None:
    plan = plan_of(*PLAN["steps"], step("waiting", n=1), step("next", n={"$ref": "steps.waiting#/n"}))
    at = await Repairs(plan=plan).begin()
    await at.repair()
    assert at.planner.tasks[0].repair is not None
    stays = {one.step_id: one.status for one in at.planner.tasks[0].repair.finished}
    assert stays == {"kept": "succeeded", "waiting": "pending", "next": "pending"}


async def test_a_second_delivery_makes_no_second_version() -> None:
    at = await Repairs().begin()
    first = await at.repair()
    before = (await at.world.events(), await at.world.audit(), await at.run())
    assert await at.repair(attempt=2) == first
    assert (await at.world.events(), await at.world.audit(), await at.run()) == before
    assert len(at.planner.tasks) == 1


async def test_of_two_deliveries_at_once_the_first_version_stands_for_both() -> None:
    at = await Repairs().begin()
    planners = [Planner(rest(step(name), uses=[name])) for name in ("one", "two")]
    for planner in planners:
        planner.gate = asyncio.Event()
    both = [
        asyncio.create_task(repair_plan(TASK, dataclasses.replace(at.world.deps, planner=planner)))
        for planner in planners
    ]
    await asyncio.sleep(0.05)
    for planner, delivery in zip(planners, both, strict=True):
        assert planner.gate is not None
        planner.gate.set()
        await asyncio.wait([delivery])
    assert both[1].result() == {"status": "failed", "code": "run.conflict", "retryable": True}
    assert await at.repair() == both[0].result()
    run = await at.run()
    assert (run.plan_version, len(run.earlier_plans)) == (2, 1)


async def test_a_crash_between_planning_and_storing_leaves_one_version() -> None:
    at = await Repairs().begin()
    change = at.world.runs.change

    async def dies(*args: Any, **kwargs: Any) -> Any:
        raise LivoaError("store.unavailable", "down", status=503)

    at.world.runs.change = dies  # type: ignore[method-assign]  # the process dies here
    assert (await at.repair())["retryable"]
    at.world.runs.change = change  # type: ignore[method-assign]  # and comes back
    assert (await at.run()).plan_version == 1
    assert (await at.repair(attempt=2))["status"] == "planned"
    run = await at.run()
    assert (run.plan_version, run.plan_hash) == (2, (await at.records("plan.repaired"))[-1].body["plan_hash"])


async def test_without_its_record_no_version_comes_into_force() -> None:
    at = await Repairs().begin()

    async def down(entry: Any) -> None:
        raise LivoaError("store.unavailable", "down", status=503)

    at.world.deps.audit.append = down  # type: ignore[method-assign]  # the chain cannot be written
    assert (await at.repair())["retryable"]
    assert (await at.run()).plan_version == 1


NOT_KEPT = rest(step("other"), kept=None, uses=["other"])
CHANGED = rest(step("other"), kept=step("kept", n=5), uses=["other"])
AGAIN = rest(step("behind"), uses=["behind"])
FAULTY = rest(step("other", "calc.secret"), uses=["other"])


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (NOT_KEPT, "plan.repair_changes"),
        (CHANGED, "plan.repair_changes"),
        (AGAIN, "plan.repair_reuses_id"),
        (FAULTY, "plan.capability_not_enabled"),
        (lambda task: NoPlan(code="plan.unplannable", message="no"), "plan.unplannable"),
    ],
    ids=["left out", "changed", "id again", "faulty", "no plan"],
)
async def test_what_is_no_repair_is_refused_for_good_and_the_plan_stays(say: Say, code: str) -> None:
    at = await Repairs(say, ANOTHER).begin()
    before = await at.run()
    answer = await at.repair()
    assert answer["status"] in ("failed", "rejected")
    run = await at.run()
    assert (run.plan_version, run.plan_hash, run.error, run.status) == (1, before.plan_hash, None, RunStatus.RUNNING)
    log = await at.world.deps.events.read("contoso", "run-1", after_seq=0, limit=50)
    assert log[-1].type.value == "plan.rejected"
    assert code in log[-1].data["codes"]
    assert [record.body["failed_step"] for record in await at.records("plan.rejected")] == ["a"]
    # A planner that could do it now is not asked: the run has gone on without a repair.
    assert await at.repair(attempt=2) == {"status": "failed", "code": "plan.repair_refused"}
    assert len(at.planner.tasks) == 1
    if at.planner.reviews:
        assert code in at.planner.reviews[0], "the planner was not told"


async def test_without_a_model_there_is_no_repair() -> None:
    at = await Repairs().begin()
    at.put(planner=DegradedPlanner(at.world.deps.catalog, at.world.clock))
    assert await at.repair() == {"status": "failed", "code": "plan.unplannable"}


class Policy(BuiltinPolicyEngine):
    """Decides about plans by a script; ``version`` is its set."""

    def __init__(self, decide: Callable[[PlanPolicyRequest], PlanPolicyDecision]) -> None:
        super().__init__()
        self.decide = decide
        self.asked: list[PlanPolicyRequest] = []

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """See the port."""
        self.asked.append(request)
        return self.decide(request)


def verdict(kind: Verdict, **fields: Any) -> PlanPolicyDecision:
    return PlanPolicyDecision(verdict=kind, policy_set_hash="set-1", **fields)


DENY = verdict(Verdict.DENY, code="policy.no", reasons=("because",))
ESCALATE = verdict(Verdict.ESCALATE, code="policy.people", cures=(Cure(kind="approval", detail="plan"),))


async def test_a_denied_repair_never_runs() -> None:
    at = await Repairs().begin()
    policy = Policy(lambda request: DENY)
    at.put(policy=policy)
    assert await at.repair() == {"status": "denied", "code": "policy.no"}
    assert policy.asked[-1].plan is not None
    assert [one.id for one in policy.asked[-1].plan.steps] == ["kept", "other"], "not the whole version was vetted"
    assert (await at.run()).plan_version == 1
    assert (await at.world.perform("other")).code == "step.unknown"
    assert {record.body["code"] for record in await at.records("plan.rejected")} == {"policy.no"}
    assert not await at.records("plan.repaired")


async def test_a_version_that_wants_a_person_waits_and_what_was_approved_is_what_runs() -> None:
    at = await Repairs(ANOTHER, rest(step("different"), uses=["different"])).begin()
    at.put(policy=Policy(lambda request: verdict(Verdict.ALLOW) if request.cures.approved else ESCALATE))
    answer = await at.repair()
    assert answer["status"] == "awaiting_approval"
    run = await at.run()
    assert (run.plan_version, run.status) == (1, RunStatus.AWAITING_APPROVAL)
    assert run.proposed_plan is not None
    (approval,) = await at.world.deps.approvals.of_run("contoso", "run-1")
    assert (approval.plan_version, approval.binding.plan_hash) == (2, run.proposed_plan.plan_hash)
    assert await at.repair() == answer
    yes = ApprovalAnswer(granted=True, by="tid:ben")
    await at.world.deps.approvals.answer("contoso", "run-1", approval.approval_id, yes)
    assert (await at.run()).status is RunStatus.RUNNING
    assert (await at.repair())["status"] == "planned"
    run = await at.run()
    assert (run.plan_hash, run.plan_version, run.proposed_plan) == (approval.binding.plan_hash, 2, None)
    (record,) = await at.records("plan.repaired")
    assert record.body["approval_id"] == approval.approval_id
    assert len(at.planner.tasks) == 1


async def test_a_no_is_no_repair() -> None:
    at = await Repairs().begin()
    at.put(policy=Policy(lambda request: ESCALATE))
    answer = await at.repair()
    no = ApprovalAnswer(granted=False, by="tid:ben")
    await at.world.deps.approvals.answer("contoso", "run-1", answer["approval_id"], no)
    assert await at.repair() == {"status": "denied", "code": "approval.refused"}
    assert ((await at.run()).plan_version, (await at.run()).error) == (1, None)


async def test_a_repaired_plan_is_trusted_no_more_than_what_its_writers_saw() -> None:
    say = rest(step("other"), uses=["other"], integrity=2)
    at = await Repairs(say).begin()
    policy = Policy(lambda request: verdict(Verdict.ALLOW))
    at.put(policy=policy)
    run = at.world.runs._runs["contoso", "run-1"]
    assert run.run.provenance is not None
    worse = run.run.provenance.model_copy(update={"seen_integrity": 1})
    run.run = run.run.model_copy(update={"provenance": worse})
    await at.repair()
    assert {one.provenance.seen_integrity for one in policy.asked if one.provenance} == {1}
    made = (await at.run()).provenance
    assert made is not None
    assert made.seen_integrity == 1


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (RunStatus.CANCELLING, {"status": "failed", "code": "run.cancelled", "retryable": True}),
        (RunStatus.SUSPENDED, {"status": "suspended", "number": 1}),
    ],
)
async def test_a_run_that_is_cancelled_or_suspended_plans_nothing(status: RunStatus, answer: dict[str, Any]) -> None:
    at = await Repairs().begin()
    await at.world.runs.change("contoso", "run-1", RunChange(status=status))
    assert await at.repair() == answer
    assert not at.planner.tasks


async def test_a_repair_that_comes_to_nothing_after_the_run_is_over_adds_no_event_after_the_last_one() -> None:
    """The run did not wait for it: its time was used up, perhaps by a clock that was set forwards."""
    at = await Repairs(lambda _: NoPlan(code="plan.unplannable", message="no idea")).begin()
    at.planner.gate = asyncio.Event()
    delivery = asyncio.create_task(at.repair())
    await asyncio.sleep(0.02)
    await at.world.runs.change("contoso", "run-1", RunChange(status=RunStatus.FAILED, finished_at=at.world.clock.now()))
    before = await at.world.deps.events.read("contoso", "run-1", after_seq=0, limit=1_000)
    at.planner.gate.set()
    assert (await delivery)["status"] == "failed"
    assert await at.world.deps.events.read("contoso", "run-1", after_seq=0, limit=1_000) == before


async def test_a_run_that_is_suspended_while_it_is_planned_is_repaired_after_it_goes_on() -> None:
    at = await Repairs().begin()
    at.planner.gate = asyncio.Event()
    delivery = asyncio.create_task(at.repair())
    await asyncio.sleep(0.02)
    await at.world.runs.change("contoso", "run-1", RunChange(status=RunStatus.SUSPENDED))
    at.planner.gate.set()
    assert (await delivery)["retryable"]
    assert (await at.repair(attempt=2))["status"] == "suspended"
    assert (await at.run()).plan_version == 1
    await at.world.runs.change("contoso", "run-1", RunChange(status=RunStatus.RUNNING))
    assert (await at.repair(attempt=2))["status"] == "planned"


@pytest.mark.parametrize(
    ("task", "tenant", "code"),
    [
        ({"number": 3}, {}, "plan.repairs_exhausted"),
        ({}, {"planner": PlannerRules(max_run_repairs=0)}, "plan.repairs_exhausted"),
        ({"step_id": "kept"}, {}, "plan.repair_needless"),
        ({"step_id": "nobody"}, {}, "plan.repair_needless"),
    ],
)
async def test_what_nobody_may_ask_for_is_refused(task: dict[str, Any], tenant: dict[str, Any], code: str) -> None:
    at = await Repairs(**tenant).begin()
    assert await at.repair(**task) == {"status": "failed", "code": code}
    assert not at.planner.tasks


async def test_a_repair_comes_too_late_for_what_has_gone_on() -> None:
    at = await Repairs().begin()
    await at.world.perform("last")
    assert await at.repair() == {"status": "failed", "code": "plan.repair_late"}


@pytest.mark.parametrize("payload", [{}, TASK | {"number": 0}, TASK | {"step_id": "../x"}, TASK | {"code": 4}])
async def test_a_task_that_makes_no_sense_fails(payload: dict[str, Any]) -> None:
    answer = await repair_plan(payload, World().deps)
    assert answer == {"status": "failed", "code": "plan.malformed_task"}


async def test_a_plan_that_was_tampered_with_is_not_repaired() -> None:
    at = await Repairs().begin()
    other = await at.world.deps.payloads.put("contoso", "run-1", json.dumps(plan_of(step("a"))).encode())
    kept = at.world.runs._runs["contoso", "run-1"]
    kept.run = kept.run.model_copy(update={"plan_ref": other})
    assert (await at.repair())["code"] == "plan.tampered"
    assert not at.planner.tasks


async def test_no_id_of_any_version_is_used_again() -> None:
    again = step("other", n=1, on_failure="repair", retry={"max_attempts": 1})
    at = await Repairs(rest(again, uses=["other"]), rest(step("behind"), uses=["behind"]), ANOTHER).begin()
    assert (await at.repair())["status"] == "planned"
    at.world.invoker.behaviours["calc.double"] = failing("agent.broken", retryable=False)
    assert (await at.world.perform("other")).status == "failed"
    answer = await at.repair(number=2, step_id="other")
    assert answer == {"status": "rejected", "code": "plan.rejected"}
    assert "plan.repair_reuses_id" in at.planner.reviews[-1]


async def test_what_a_replaced_step_did_can_still_be_undone() -> None:
    item = {"$ref": "item#"}
    fields = {"on_failure": "repair", "compensate_with": {"capability": "calc.double", "inputs": {"n": item}}}
    at = Repairs(plan=plan_of(step("kept", n=4), step("a", "mail.send", n=item, for_each=[5, 6], **fields)))
    await at.world.submit(at.plan)
    await at.world.perform("kept")
    task = StepTask(tenant_id="contoso", run_id="run-1", step_id="a")
    await expand_map(task, at.world.deps)
    assert (await at.world.perform("a", item=0)).status == "succeeded"
    at.world.invoker.behaviours["mail.send"] = failing("agent.broken", retryable=False)
    assert (await at.world.perform("a", item=1)).status == "failed"
    assert (await collect_map(task, 2, at.world.deps)).status == "failed"
    assert (await at.repair())["status"] == "planned"
    assert (await undo_step(task, at.world.deps)).status == "undone"
    last = at.world.invoker.calls[-1]
    assert (last.idempotency_key, last.inputs) == ("run-1/a/0/undo", {"n": 5})


# ---- approvals across versions ----


class StepPolicy(BuiltinPolicyEngine):
    """Wants a person for every call of ``mail.send``."""

    async def decide_step(self, request: StepPolicyRequest) -> Any:
        """See the port."""
        if request.capability_name != "mail.send" or request.cures.approved:
            return PolicyDecision(verdict=Verdict.ALLOW, policy_set_hash="set-1")
        cures = (Cure(kind="approval", detail=request.step_id),)
        return PolicyDecision(verdict=Verdict.ESCALATE, policy_set_hash="set-1", code="policy.people", cures=cures)

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """See the port."""
        return verdict(Verdict.ALLOW)


async def _asked(answered_first: bool) -> tuple[Repairs, str]:
    mail = step("mail", "mail.send", n={"$ref": "steps.kept#/n"})
    at = Repairs(plan=plan_of(*PLAN["steps"], mail))
    at.put(policy=StepPolicy())
    await at.begin()
    waiting = await at.world.perform("mail")
    assert waiting.status == "awaiting_approval"
    if answered_first:
        await _yes(at, waiting.approval_id)
    assert (await at.repair())["status"] == "planned"
    return at, waiting.approval_id


async def _yes(at: Repairs, approval_id: str) -> None:
    yes = ApprovalAnswer(granted=True, by="tid:ben")
    await at.world.deps.approvals.answer("contoso", "run-1", approval_id, yes)


async def test_a_yes_survives_for_a_step_that_is_the_same_in_the_next_version() -> None:
    at, approval_id = await _asked(answered_first=True)
    assert (await at.world.perform("mail")).status == "succeeded"
    (approval,) = await at.world.deps.approvals.of_run("contoso", "run-1")
    assert (approval.approval_id, approval.status) == (approval_id, ApprovalStatus.GRANTED)
    intended = [r for r in await at.records("dispatch.intended") if "/mail" in r.entry_id]
    assert [record.body["decision"]["approval_id"] for record in intended] == [approval_id]
    (earlier,) = (await at.run()).earlier_plans
    assert intended[0].body["approved_plan_hash"] == earlier.plan_hash != intended[0].body["plan_hash"]
    assert intended[0].body["step_hash"]


async def test_an_open_question_stays_the_same_question() -> None:
    at, approval_id = await _asked(answered_first=False)
    assert (await at.world.perform("mail")).approval_id == approval_id
    await _yes(at, approval_id)
    assert (await at.world.perform("mail")).status == "succeeded"


@pytest.mark.parametrize(
    "change",
    [
        {"step_hash": "0" * 64},
        {"binding": {"policy_set_hash": "set-0"}},
        {"binding": {"arguments_sha256": "0" * 64}},
        {"binding": {"plan_hash": "0" * 64}},
        {"status": ApprovalStatus.VOID},
        {"status": ApprovalStatus.REFUSED},
    ],
    ids=["another step", "other policies", "other arguments", "a plan of nobody", "void", "a no"],
)
async def test_an_approval_of_anything_else_is_worth_nothing(change: dict[str, Any]) -> None:
    at, approval_id = await _asked(answered_first=True)
    kept = await at.world.deps.approvals.get("contoso", "run-1", approval_id)
    assert kept is not None
    binding = kept.binding.model_copy(update=change.pop("binding", {}))
    of_run = at.world.deps.approvals._approvals["contoso", "run-1"]  # type: ignore[attr-defined]  # no store changes one so
    of_run[approval_id] = kept.model_copy(update={"binding": binding, **change})
    again = await at.world.perform("mail")
    assert again.status == "awaiting_approval"
    assert again.approval_id != approval_id
