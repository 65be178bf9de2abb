"""A call that policy wants approved: it waits, runs after a second person's yes, and after nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.domain.approval import Approval, ApprovalAnswer, ApprovalStatus, approval_id_of, asked_sha256
from engine.domain.audit import ENGINE_ACTOR
from engine.domain.base import iso_utc
from engine.domain.errors import LivoaError
from engine.domain.outcomes import AwaitingApproval, Cancelled, Denied, Failed, Succeeded
from engine.domain.policy import PolicyDecision, StepPolicyRequest
from engine.domain.run import PayloadRef, StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import verify
from engine.ports.run_store import RunChange
from tests.support.payloads import keyring
from tests.support.policy import ALLOW, ScriptedPolicy, deny, escalate, four_eyes
from tests.support.world import START, World, plan_of, step

YES = ApprovalAnswer(granted=True, by="tid:ben")
NO = ApprovalAnswer(granted=False, by="tid:ben")


class Governed:
    """A world with a scripted policy and one step ``a`` that sends mail."""

    def __init__(self, **rules: Any) -> None:
        self.world = World()
        self.policy = ScriptedPolicy(rules)
        self.world.deps = dataclasses.replace(self.world.deps, policy=self.policy)

    @property
    def deps(self) -> Any:
        return self.world.deps

    async def plan(self, *steps: dict[str, Any]) -> None:
        assert (await self.world.submit(plan_of(*(steps or (step("a", "mail.send", n=5),)))))["status"] == "planned"

    async def approvals(self) -> tuple[Approval, ...]:
        return await self.deps.approvals.of_run("contoso", "run-1")

    async def answer(self, answer: ApprovalAnswer = YES, index: int = -1) -> Approval:
        approval = (await self.approvals())[index]
        return await self.deps.approvals.answer("contoso", "run-1", approval.approval_id, answer)

    async def status(self) -> RunStatus:
        run = await self.world.runs.get("contoso", "run-1")
        assert run is not None
        return run.status

    async def record(self, step_id: str = "a", item: int | None = None) -> StepRecord:
        record = await self.world.runs.get_step("contoso", "run-1", step_id, item)
        assert record is not None
        return record

    async def audit_of(self, kind: str) -> list[Any]:
        records = await self.deps.audit.read("contoso", after_seq=0, limit=100)
        assert not verify(records, tenant_id="contoso")
        return [record for record in records if record.type.value == kind]


@pytest.fixture
async def governed() -> Governed:
    made = Governed(a=four_eyes)
    await made.plan()
    return made


async def test_without_an_answer_nothing_is_called_and_nothing_is_used_up(governed: Governed) -> None:
    first = await governed.world.perform("a")
    (approval,) = await governed.approvals()
    expires_at = START + timedelta(hours=1)  # the run's deadline comes before a day
    assert first == AwaitingApproval(approval_id=approval.approval_id, expires_at=iso_utc(expires_at), left_s=3_600.0)
    assert await governed.world.perform("a") == first
    assert governed.world.invoker.calls == []
    assert await governed.approvals() == (approval,)
    record = await governed.record()
    assert (record.status, record.attempt, record.approval_id) == (StepStatus.WAITING, 1, approval.approval_id)
    assert await governed.status() is RunStatus.AWAITING_APPROVAL
    budget = await governed.deps.budgets.state("contoso", "run-1")
    assert budget.reserved_micro_usd == 0
    assert (await governed.world.audit())[1:] == ["policy.decision", "approval.requested"]
    assert (await governed.world.events())[-1] == "approval.requested"


async def test_what_the_approver_reads_is_what_will_be_sent_and_stands_in_the_payload_store_alone(
    governed: Governed,
) -> None:
    await governed.world.perform("a")
    (approval,) = await governed.approvals()
    shown = json.loads(await governed.deps.payloads.get("contoso", "run-1", approval.arguments_ref))
    assert shown == {"capability": "mail.send", "inputs": {"n": 5}}
    assert approval.findings[0].path == ("steps.web#/hits/0",)
    assert (approval.requested_by, approval.waiter, approval.subject) == ("tid:ana", "run-1", "a")
    events = await governed.deps.events.read("contoso", "run-1", after_seq=0, limit=100)
    assert events[-1].data.keys() == {"subject", "approval_id", "kind", "capability", "expires_at"}


async def test_a_second_persons_yes_lets_it_run_once(governed: Governed) -> None:
    await governed.world.perform("a")
    granted = await governed.answer()
    assert await governed.world.perform("a") == Succeeded()
    assert await governed.world.perform("a") == Succeeded()
    (call,) = governed.world.invoker.calls
    assert (call.inputs, call.attempt) == ({"n": 5}, 1)
    (intent,) = await governed.audit_of("dispatch.intended")
    assert intent.body["decision"]["approval_id"] == granted.approval_id
    assert intent.body["decision"]["approved_by"] == "tid:ben"
    (grant,) = await governed.audit_of("approval.granted")
    assert (grant.actor, grant.body["arguments_sha256"]) == ("tid:ben", intent.body["inputs_sha256"])
    assert await governed.status() is RunStatus.RUNNING


async def test_an_id_that_stands_on_record_confirms_no_guess_of_what_was_asked(
    governed: Governed, tmp_path: Path
) -> None:
    governed.world.deps = dataclasses.replace(governed.deps, commitments=keyring(tmp_path))
    for _ in range(2):
        assert isinstance(await governed.world.perform("a"), AwaitingApproval)
    (asked,) = await governed.approvals()
    guessed = approval_id_of(asked_sha256("run-1", asked.binding))
    assert asked.approval_id != guessed
    (record,) = await governed.audit_of("approval.requested")
    assert guessed not in record.model_dump_json()
    await governed.answer()
    assert await governed.world.perform("a") == Succeeded()


async def test_what_an_earlier_version_asked_is_not_asked_again(governed: Governed, tmp_path: Path) -> None:
    waits = await governed.world.perform("a")
    assert isinstance(waits, AwaitingApproval)
    governed.world.deps = dataclasses.replace(governed.deps, commitments=keyring(tmp_path))
    again = await governed.world.perform("a")
    assert isinstance(again, AwaitingApproval)
    assert again.approval_id == waits.approval_id
    assert len(await governed.approvals()) == 1


async def test_no_grant_is_used_before_its_audit_record_stands(governed: Governed) -> None:
    await governed.world.perform("a")
    await governed.answer()
    real = governed.deps.audit.append

    async def refuse_grants(entry: Any) -> Any:
        if entry.type.value == "approval.granted":
            raise LivoaError("store.unavailable", "no disk", status=503)
        return await real(entry)

    governed.deps.audit.append = refuse_grants
    assert await governed.world.perform("a") == Failed(code="store.unavailable", retryable=True)
    assert governed.world.invoker.calls == []


async def test_a_no_is_a_denial(governed: Governed) -> None:
    await governed.world.perform("a")
    await governed.answer(NO)
    assert await governed.world.perform("a") == Denied(code="approval.refused")
    assert governed.world.invoker.calls == []
    assert (await governed.record()).error is not None
    assert (await governed.world.events())[-1] == "step.denied"
    assert len(await governed.audit_of("approval.refused")) == 1


async def test_when_nobody_answers_in_time_it_is_denied(governed: Governed) -> None:
    await governed.world.perform("a")
    governed.world.clock.advance(3600)
    assert await governed.world.perform("a") == Denied(code="approval.expired")
    assert len(await governed.audit_of("approval.expired")) == 1
    with pytest.raises(LivoaError) as late:
        await governed.answer()
    assert late.value.code == "approval.expired"


async def test_the_requesters_own_yes_does_not_help(governed: Governed) -> None:
    """The store is not the place where the rule is kept first, so the runner keeps it too."""
    await governed.world.perform("a")
    await governed.answer(ApprovalAnswer(granted=True, by="tid:ana"))
    assert await governed.world.perform("a") == Denied(code="policy.escalate")
    assert governed.world.invoker.calls == []


async def test_a_hard_no_stays_one_after_a_yes() -> None:
    def rule(request: StepPolicyRequest) -> PolicyDecision:
        return deny("policy.ceiling") if request.cures.approved else escalate()

    governed = Governed(a=rule)
    await governed.plan()
    await governed.world.perform("a")
    await governed.answer()
    assert await governed.world.perform("a") == Denied(code="policy.ceiling")
    assert governed.world.invoker.calls == []


async def test_policies_that_changed_meanwhile_ask_again(governed: Governed) -> None:
    await governed.world.perform("a")
    await governed.answer()
    governed.policy.version = "set-2"
    governed.world.clock.advance(1)
    assert isinstance(await governed.world.perform("a"), AwaitingApproval)
    first, second = await governed.approvals()
    assert (first.status, second.status) == (ApprovalStatus.VOID, ApprovalStatus.PENDING)
    assert governed.world.invoker.calls == []
    (voided,) = await governed.audit_of("approval.voided")
    assert voided.body["approval_id"] == first.approval_id
    assert voided.body["void_code"] == "approval.policies_changed"
    assert voided.actor == ENGINE_ACTOR, "it is no act of who had granted it"
    await governed.answer()
    assert await governed.world.perform("a") == Succeeded()


async def test_policies_that_change_between_asking_and_allowing_ask_again(governed: Governed) -> None:
    def rule(request: StepPolicyRequest) -> PolicyDecision:
        if request.cures.approved and governed.policy.version == "set-1":
            governed.policy.version = "set-2"
        return four_eyes(request)

    await governed.world.perform("a")
    await governed.answer()
    governed.policy.steps["a"] = rule
    assert isinstance(await governed.world.perform("a"), AwaitingApproval)
    assert governed.world.invoker.calls == []


async def test_arguments_that_changed_meanwhile_void_the_yes() -> None:
    """Somebody with access to the stores swaps the output that the approved argument came from."""
    governed = Governed(a=four_eyes)
    await governed.plan(step("source", n=2), step("a", "mail.send", n={"$ref": "steps.source#/n"}))
    await governed.world.perform("source")
    await governed.world.perform("a")
    await governed.answer()
    forged = await governed.deps.payloads.put("contoso", "run-1", b'{"n":1000000}')
    governed.world.clock.advance(1)
    held = governed.world.runs._runs["contoso", "run-1"]
    held.steps["source", None] = held.steps["source", None].model_copy(update={"output_ref": forged})
    assert isinstance(await governed.world.perform("a"), AwaitingApproval)
    assert governed.world.invoker.calls[1:] == []
    first, second = await governed.approvals()
    assert (first.status, second.status) == (ApprovalStatus.VOID, ApprovalStatus.PENDING)
    assert first.binding.arguments_sha256 != second.binding.arguments_sha256


async def test_a_yes_for_one_plan_is_no_yes_for_another(governed: Governed) -> None:
    await governed.world.perform("a")
    await governed.answer()
    held = governed.world.runs._runs["contoso", "run-1"]
    other = json.dumps(plan_of(step("a", "mail.send", n=5), step("b"))).encode()
    ref = await governed.deps.payloads.put("contoso", "run-1", other)
    held.run = held.run.model_copy(update={"plan_ref": ref, "plan_hash": ref.sha256})
    outcome = await governed.world.perform("a")
    assert isinstance(outcome, AwaitingApproval)
    assert outcome.approval_id != (await governed.approvals())[0].approval_id
    assert governed.world.invoker.calls == []


async def test_a_plan_that_is_not_the_one_its_hash_names_does_not_run(governed: Governed) -> None:
    await governed.world.perform("a")
    await governed.answer()
    held = governed.world.runs._runs["contoso", "run-1"]
    forged = json.dumps(plan_of(step("a", "mail.send", n=5), step("b"))).encode()
    ref = await governed.deps.payloads.put("contoso", "run-1", forged)
    held.run = held.run.model_copy(update={"plan_ref": ref})
    assert await governed.world.perform("a") == Failed(code="plan.tampered", retryable=False)
    assert governed.world.invoker.calls == []


async def test_an_approval_on_record_that_binds_something_else_is_none(governed: Governed) -> None:
    await governed.world.perform("a")
    await governed.answer()
    (approval,) = await governed.approvals()
    other = approval.binding.model_copy(update={"arguments_sha256": "0" * 64})
    forged = approval.model_copy(update={"binding": other})
    governed.deps.approvals._approvals["contoso", "run-1"][approval.approval_id] = forged
    assert await governed.world.perform("a") == Denied(code="approval.mismatch")


async def test_a_cancelled_run_asks_nobody(governed: Governed) -> None:
    await governed.world.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLING))
    assert await governed.world.perform("a") == Cancelled()
    assert await governed.approvals() == ()


async def test_a_cancel_between_the_look_and_the_question_ends_it(governed: Governed) -> None:
    real = governed.deps.payloads.put

    async def cancel_meanwhile(*args: Any, **kwargs: Any) -> PayloadRef:
        await governed.world.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLING))
        return await real(*args, **kwargs)

    governed.deps.payloads.put = cancel_meanwhile
    assert await governed.world.perform("a") == Cancelled()
    assert await governed.approvals() == ()


async def test_two_looks_at_once_ask_once(governed: Governed) -> None:
    outcomes = await asyncio.gather(*(governed.world.perform("a") for _ in range(6)))
    assert len(set(outcomes)) == 1
    assert len(await governed.approvals()) == 1
    assert (await governed.world.events()).count("approval.requested") == 1


async def test_a_crash_between_record_and_question_is_made_good(governed: Governed) -> None:
    real = governed.deps.approvals.request

    async def crash(approval: Approval) -> Approval:
        raise RuntimeError("power cut")

    governed.deps.approvals.request = crash
    with pytest.raises(RuntimeError):
        await governed.world.perform("a")
    governed.deps.approvals.request = real
    assert isinstance(await governed.world.perform("a"), AwaitingApproval)
    assert len(await governed.approvals()) == 1
    assert (await governed.world.audit()).count("approval.requested") == 1


async def test_a_retry_after_the_yes_needs_no_second_one(governed: Governed) -> None:
    await governed.world.perform("a")
    await governed.answer()
    governed.world.clock.advance(1800)
    assert await governed.world.perform("a", attempt=2) == Succeeded()


async def test_items_of_a_map_are_asked_about_one_by_one() -> None:
    def only_the_second(request: StepPolicyRequest) -> PolicyDecision:
        return four_eyes(request) if request.item == 1 else ALLOW

    governed = Governed(each=only_the_second)
    mail = step("each", "mail.send", n={"$ref": "item#"}, for_each={"$ref": "steps.list#/items"})
    await governed.plan(step("list", "calc.range", n=3), mail)
    await governed.world.perform("list")
    assert await governed.world.perform("each", item=0) == Succeeded()
    assert isinstance(await governed.world.perform("each", item=1), AwaitingApproval)
    (approval,) = await governed.approvals()
    assert (approval.subject, approval.binding.item) == ("each", 1)
    assert await governed.world.perform("each", item=2) == Succeeded()
    await governed.answer()
    assert await governed.world.perform("each", item=1) == Succeeded()


class Asked(Governed):
    """A plan with a question to a person, and a step that goes on with the answer."""

    async def ask(self, **fields: Any) -> Any:
        question = {"id": "ok", "approval": {"question": "Shall we send it?"} | fields}
        await self.plan(question, step("a", "mail.send", needs=["ok"]))
        return await self.world.perform("ok")


async def test_a_question_waits_and_its_yes_is_its_output() -> None:
    asked = Asked()
    outcome = await asked.ask()
    assert isinstance(outcome, AwaitingApproval)
    (approval,) = await asked.approvals()
    shown = json.loads(await asked.deps.payloads.get("contoso", "run-1", approval.arguments_ref))
    assert shown == {"question": "Shall we send it?"}
    assert (approval.binding.kind, approval.subject) == ("question", "ok")
    await asked.answer()
    assert await asked.world.perform("ok") == Succeeded()
    assert await asked.world.output("ok") == {"approved": True, "by": "tid:ben", "at": iso_utc(START)}
    assert (await asked.record("ok")).kind == "approval"
    events = await asked.deps.events.read("contoso", "run-1", after_seq=0, limit=100)
    assert "Shall we send it?" not in json.dumps([event.data for event in events])


async def test_a_questions_no_denies_the_step() -> None:
    asked = Asked()
    await asked.ask()
    await asked.answer(NO)
    assert await asked.world.perform("ok") == Denied(code="approval.refused")


async def test_a_question_has_its_own_time() -> None:
    asked = Asked()
    await asked.ask(timeout_s=60)
    asked.world.clock.advance(60)
    assert await asked.world.perform("ok") == Denied(code="approval.expired")


async def test_the_requester_cannot_answer_their_own_question() -> None:
    asked = Asked()
    await asked.ask()
    await asked.answer(ApprovalAnswer(granted=True, by="tid:ana"))
    assert await asked.world.perform("ok") == Denied(code="approval.self")


async def test_results_survive_a_store_that_fails_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write after the call is tried again; the call itself is not repeated."""
    from engine.step_runner import persistence

    monkeypatch.setattr(persistence, "PAUSES_S", (0, 0))
    world = World()
    await world.submit(plan_of(step("a", "mail.send")))
    failures = {"put": 2, "settle": 2, "put_step": 2, "append": 2}

    def failing(name: str, real: Any) -> Any:
        async def write(*args: Any, **kwargs: Any) -> Any:
            if world.invoker.calls and failures[name]:
                failures[name] -= 1
                raise LivoaError("store.unavailable", "not now", status=503)
            return await real(*args, **kwargs)

        return write

    world.deps.payloads.put = failing("put", world.deps.payloads.put)
    world.deps.budgets.settle = failing("settle", world.deps.budgets.settle)
    world.deps.runs.put_step = failing("put_step", world.deps.runs.put_step)
    world.deps.audit.append = failing("append", world.deps.audit.append)
    assert await world.perform("a") == Succeeded()
    assert len(world.invoker.calls) == 1
    assert set(failures.values()) == {0}


async def test_trouble_that_lasts_is_left_to_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.step_runner import persistence

    monkeypatch.setattr(persistence, "PAUSES_S", (0, 0))
    world = World()
    await world.submit(plan_of(step("a")))
    real = world.deps.audit.append

    async def never(entry: Any) -> Any:
        if entry.type.value == "dispatch.result":
            raise LivoaError("store.unavailable", "not today", status=503)
        return await real(entry)

    world.deps.audit.append = never
    assert await world.perform("a") == Failed(code="store.unavailable", retryable=True)


async def test_an_argument_bound_at_run_time_is_decided_on_where_it_is_used() -> None:
    """The plan was allowed; what came out of an earlier step is above the limit."""
    governed = Governed(a=lambda request: deny("policy.limit") if request.inputs["n"] > 100 else ALLOW)
    await governed.plan(step("source", n=60), step("a", "mail.send", n={"$ref": "steps.source#/n"}))
    await governed.world.perform("source")
    assert await governed.world.perform("a") == Denied(code="policy.limit")
    assert [call.capability for call in governed.world.invoker.calls] == ["calc.double"]
    kinds = await governed.world.audit()
    assert kinds == ["plan.validated", "dispatch.intended", "dispatch.result", "policy.decision"]
    (decision,) = await governed.audit_of("policy.decision")
    assert decision.body["verdict"] == "deny"
    assert decision.body["policies"] == ["t/test/forbid"]
    assert decision.body["policy_set"] == "set-1"
    assert len(decision.body["facts_sha256"]) == 64
