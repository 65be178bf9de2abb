"""A plan that policy wants approved: stored, asked about, and in force only after a second person's yes to this very plan."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from engine.domain.approval import Approval, ApprovalAnswer, ApprovalStatus
from engine.domain.policy import PlanPolicyRequest, PolicyDecision
from engine.domain.run import Run
from engine.domain.status import RunStatus
from engine.evidence import verify
from engine.ports.run_store import RunChange
from tests.support.policy import ALLOW, ScriptedPolicy, deny, escalate
from tests.support.world import World, plan_of, step

YES = ApprovalAnswer(granted=True, by="tid:ben")
NO = ApprovalAnswer(granted=False, by="tid:ben")


def two_people(request: PlanPolicyRequest) -> PolicyDecision:
    return ALLOW if request.cures.approved and request.cures.approver_differs else escalate(reason="a costly plan")


class Held:
    """A world whose policy wants plans approved."""

    def __init__(self, rule: Any = two_people) -> None:
        self.world = World()
        self.policy = ScriptedPolicy(plan=rule)
        self.world.deps = dataclasses.replace(self.world.deps, policy=self.policy)

    async def submit(self) -> dict[str, Any]:
        return await self.world.submit(plan_of(step("a"), step("b")))

    async def again(self) -> dict[str, Any]:
        from activities.plan_run import plan_run

        return await plan_run({"tenant_id": "contoso", "run_id": "run-1"}, self.world.deps)

    async def run(self) -> Run:
        run = await self.world.runs.get("contoso", "run-1")
        assert run is not None
        return run

    async def approvals(self) -> tuple[Approval, ...]:
        return await self.world.deps.approvals.of_run("contoso", "run-1")

    async def answer(self, answer: ApprovalAnswer = YES) -> None:
        approval = (await self.approvals())[-1]
        await self.world.deps.approvals.answer("contoso", "run-1", approval.approval_id, answer)


async def test_the_plan_is_kept_and_asked_about_but_not_in_force() -> None:
    held = Held()
    first = await held.submit()
    (approval,) = await held.approvals()
    assert first["status"] == "awaiting_approval"
    assert first["approval_id"] == approval.approval_id
    assert await held.again() == first
    run = await held.run()
    assert (run.status, run.plan_version) == (RunStatus.AWAITING_APPROVAL, 0)
    assert approval.subject == "plan"
    assert approval.arguments_ref == run.plan_ref
    assert approval.binding.plan_hash == run.plan_hash
    assert await held.world.events() == ["run.accepted", "plan.proposed", "approval.requested"]
    assert await held.world.audit() == ["plan.proposed", "approval.requested"]


async def test_after_a_yes_the_stored_plan_goes_on_unchanged() -> None:
    held = Held()
    await held.submit()
    before = await held.run()
    await held.answer()
    planned = await held.again()
    assert planned["status"] == "planned"
    assert await held.again() == planned
    after = await held.run()
    assert (after.status, after.plan_version, after.plan_hash) == (RunStatus.RUNNING, 1, before.plan_hash)
    assert await held.world.events() == [
        "run.accepted", "plan.proposed", "approval.requested", "approval.granted", "plan.vetted",
    ]  # fmt: skip
    records = await held.world.deps.audit.read("contoso", after_seq=0, limit=20)
    assert not verify(records, tenant_id="contoso")
    assert [record.type.value for record in records] == [
        "plan.proposed", "approval.requested", "approval.granted", "plan.validated",
    ]  # fmt: skip
    assert records[-1].body["verdict"] == "allow"


@pytest.mark.parametrize(("answer", "code"), [(NO, "approval.refused"), (None, "approval.expired")])
async def test_a_no_and_no_answer_deny_the_run(answer: ApprovalAnswer | None, code: str) -> None:
    held = Held()
    await held.submit()
    if answer is not None:
        await held.answer(answer)
    else:
        held.world.clock.advance(3600)
    assert await held.again() == {"status": "denied", "code": code}
    assert await held.again() == {"status": "denied", "code": code}
    assert (await held.world.events())[-1] == "plan.rejected"
    run = await held.run()
    assert run.error is not None
    assert (run.error.code, run.plan_version) == (code, 0)


async def test_the_requesters_own_yes_is_none() -> None:
    held = Held()
    await held.submit()
    await held.answer(ApprovalAnswer(granted=True, by="tid:ana"))
    assert (await held.again())["status"] == "denied"


async def test_a_yes_under_other_policies_asks_again() -> None:
    held = Held()
    await held.submit()
    await held.answer()
    held.policy.version = "set-2"
    held.world.clock.advance(1)
    assert (await held.again())["status"] == "awaiting_approval"
    first, second = await held.approvals()
    assert (first.status, second.status) == (ApprovalStatus.VOID, ApprovalStatus.PENDING)
    assert (await held.world.audit()).count("approval.voided") == 1
    await held.answer()
    assert (await held.again())["status"] == "planned"


async def test_another_plan_in_its_place_is_not_approved() -> None:
    held = Held()
    await held.submit()
    await held.answer()
    other = json.dumps(plan_of(step("a", "mail.send"))).encode()
    ref = await held.world.deps.payloads.put("contoso", "run-1", other)
    kept = held.world.runs._runs["contoso", "run-1"]
    kept.run = kept.run.model_copy(update={"plan_ref": ref})
    assert await held.again() == {"status": "failed", "code": "plan.tampered", "retryable": False}
    # Whoever changes the hash too has another plan, for which nobody has said yes.
    from engine.plan import check_plan

    checked = check_plan(json.loads(other), tenant=held.world.tenant, catalog=held.world.deps.catalog).plan
    assert checked is not None
    ref = await held.world.deps.payloads.put("contoso", "run-1", checked.canonical_bytes())
    kept.run = kept.run.model_copy(update={"plan_ref": ref, "plan_hash": checked.plan_hash})
    held.world.clock.advance(1)
    assert (await held.again())["status"] == "awaiting_approval"


async def test_a_hard_finding_after_the_yes_denies() -> None:
    held = Held(lambda request: deny("policy.cost") if request.cures.approved else escalate())
    await held.submit()
    await held.answer()
    assert await held.again() == {"status": "denied", "code": "policy.cost"}
    last = (await held.world.deps.audit.read("contoso", after_seq=0, limit=20))[-1]
    assert (last.type.value, last.body["verdict"], last.body["code"]) == ("plan.rejected", "deny", "policy.cost")


async def test_an_escalation_that_no_person_can_cure_is_a_denial() -> None:
    held = Held(lambda request: escalate().model_copy(update={"cures": ()}))
    assert await held.submit() == {"status": "denied", "code": "policy.escalate"}
    assert await held.approvals() == ()


async def test_a_cancelled_run_is_neither_asked_about_nor_goes_on() -> None:
    held = Held()
    await held.submit()
    await held.answer()
    await held.world.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLING))
    assert (await held.again())["code"] == "run.cancelled"


async def test_the_end_of_the_run_voids_the_question() -> None:
    held = Held()
    await held.submit()
    await held.world.finish(RunStatus.CANCELLED, code="run.cancelled")
    (approval,) = await held.approvals()
    assert approval.status is ApprovalStatus.VOID
    assert (await held.world.events())[-2:] == ["approval.voided", "run.cancelled"]
    assert "approval.voided" in await held.world.audit()


async def test_a_crash_between_voiding_a_question_and_its_record_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    await held.submit()
    real = held.world.deps.approvals.close

    async def close_and_die(tenant_id: str, run_id: str) -> None:
        await real(tenant_id, run_id)
        raise RuntimeError("power cut")

    with monkeypatch.context() as broken:
        broken.setattr(held.world.deps.approvals, "close", close_and_die)
        with pytest.raises(RuntimeError):
            await held.world.finish(RunStatus.CANCELLED, code="run.cancelled")
    assert "approval.voided" not in await held.world.audit()
    await held.world.finish(RunStatus.CANCELLED, code="run.cancelled")
    assert (await held.world.audit()).count("approval.voided") == 1


async def test_policies_that_change_between_asking_and_allowing_ask_again() -> None:
    held = Held()

    def rule(request: PlanPolicyRequest) -> PolicyDecision:
        if request.cures.approved and held.policy.version == "set-1":
            held.policy.version = "set-2"
        return two_people(request)

    held.policy.plan = rule
    await held.submit()
    await held.answer()
    held.world.clock.advance(1)
    assert (await held.again())["status"] == "awaiting_approval"
    assert len(await held.approvals()) == 2
