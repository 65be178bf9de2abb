"""Approvals over HTTP: who sees them, who may answer, what an answer does, and that nothing of it can be lost or given twice."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from engine.domain.approval import Approval, ApprovalBinding, ApprovalStatus, approval_id_of, asked_sha256
from engine.domain.errors import LivoaError
from engine.domain.policy import Cure, PolicyFinding
from engine.domain.principal import Role
from engine.domain.run import StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import RunChange
from tests.unit.triggers.world import PLAN, Answered, World
from triggers.timer_sweep import sweep

APPROVER = (Role.RUNS_APPROVE,)
INPUTS = {"capability": "mail.send", "inputs": {"to": "cfo@contoso.example"}}
FINDING = PolicyFinding(
    policy_id="t/contoso/mail",
    severity="curable",
    message="needs a second person",
    step_id="second",
    path=("steps.first#/text",),
    cure=Cure(kind="approval", detail="four-eyes"),
)


class Desk:
    """A run of Ana's under way, with questions about it; Ben may answer them."""

    def __init__(self) -> None:
        self.world = World()
        self.run_id = ""

    async def open(self) -> Desk:
        world = self.world
        self.run_id = await world.submitted()
        ref = await world.payloads.put("contoso", self.run_id, json.dumps(PLAN).encode())
        change = RunChange(status=RunStatus.RUNNING, plan_ref=ref, plan_hash="a" * 64, plan_version=1)
        await world.runs.change("contoso", self.run_id, change)
        return self

    async def ask(self, step_id: str | None = "second", item: int | None = None, **fields: Any) -> Approval:
        binding = ApprovalBinding(
            kind="step" if step_id else "plan",
            step_id=step_id,
            item=item,
            plan_hash="a" * 64,
            arguments_sha256=fields.pop("arguments_sha256", "b" * 64),
        )
        run = await self.world.runs.get("contoso", self.run_id)
        assert run is not None
        shown = await self.world.payloads.put("contoso", self.run_id, json.dumps(INPUTS).encode())
        approval = Approval(
            tenant_id="contoso",
            run_id=self.run_id,
            approval_id=approval_id_of(asked_sha256(self.run_id, binding)),
            binding=binding,
            capability="mail.send",
            arguments_ref=shown,
            findings=(FINDING,),
            requested_by=run.principal.subject,
            requested_at=self.world.clock.now(),
            expires_at=run.deadline_at,
            waiter=fields.pop("waiter", self.run_id),
            **fields,
        )
        if step_id is not None:
            record = StepRecord(
                tenant_id="contoso",
                run_id=self.run_id,
                step_id=step_id,
                item=item,
                status=StepStatus.WAITING,
                approval_id=approval.approval_id,
            )
            await self.world.runs.put_step(record)
        return await self.world.deps.approvals.request(approval)

    def ben(self, **more: Any) -> str:
        return self.world.token(user="ben", roles=APPROVER, **more)

    async def answer(self, subject: str = "second", token: str | None = None, **body: Any) -> Answered:
        path = f"/api/runs/{self.run_id}/approvals/{subject}"
        return await self.world.post(path, {"decision": "approve"} | body, token=token or self.ben())

    async def stored(self, approval: Approval) -> Approval:
        found = await self.world.deps.approvals.get("contoso", self.run_id, approval.approval_id)
        assert found is not None
        return found

    async def audit(self) -> list[str]:
        return [record.type.value for record in await self.world.audit.read("contoso", after_seq=0, limit=50)]


@pytest.fixture
async def desk() -> Desk:
    return await Desk().open()


# -- seeing


async def test_the_approver_sees_the_arguments_and_where_they_come_from(desk: Desk) -> None:
    approval = await desk.ask()
    answer = await desk.world.get(f"/api/runs/{desk.run_id}/approvals", token=desk.ben())
    (shown,) = answer.json["approvals"]
    assert shown["arguments"] == INPUTS
    assert shown["findings"][0]["path"] == ["steps.first#/text"]
    assert (shown["approval_id"], shown["status"], shown["item"]) == (approval.approval_id, "pending", None)
    assert shown["plan_hash"] == "a" * 64


async def test_the_requester_and_readers_see_them_too_others_do_not(desk: Desk) -> None:
    await desk.ask()
    path = f"/api/runs/{desk.run_id}/approvals"
    world = desk.world
    assert (await world.get(path)).status == 200
    assert (await world.get(path, token=world.token(user="eve", roles=(Role.RUNS_READ,)))).status == 200
    eve = await world.get(path, token=world.token(user="eve", roles=(Role.RUNS_SUBMIT,)))
    assert (eve.status, eve.json["code"]) == (404, "run.not_found")
    theirs = await world.get(path, token=world.token("fabrikam", roles=(Role.RUNS_READ, Role.RUNS_APPROVE)))
    assert (theirs.status, theirs.json["code"]) == (404, "run.not_found")


async def test_arguments_beyond_the_limit_are_left_out_and_said_to_be(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggers.http_approvals.MAX_ARGUMENTS_BYTES", len(json.dumps(INPUTS)))
    await desk.ask()
    desk.world.clock.at += timedelta(seconds=1)
    await desk.ask("first")
    shown = (await desk.world.get(f"/api/runs/{desk.run_id}/approvals", token=desk.ben())).json["approvals"]
    assert [entry["arguments_omitted"] for entry in shown] == [True, False]


async def test_the_tenants_open_questions_are_listed(desk: Desk) -> None:
    await desk.ask()
    listed = await desk.world.get("/api/approvals", token=desk.ben())
    assert [entry["subject"] for entry in listed.json["approvals"]] == ["second"]
    assert "arguments" not in listed.json["approvals"][0]
    theirs = await desk.world.get("/api/approvals", token=desk.world.token("fabrikam", roles=APPROVER))
    assert theirs.json == {"approvals": []}
    assert (await desk.world.get("/api/approvals")).status == 403


# -- answering


async def test_an_answer_is_stored_audited_and_announced(desk: Desk) -> None:
    approval = await desk.ask()
    answer = await desk.answer(comment="fine")
    assert (answer.status, answer.json["status"], answer.json["comment"]) == (200, "granted", "fine")
    assert (await desk.stored(approval)).status is ApprovalStatus.GRANTED
    assert (await desk.audit())[-1] == "approval.granted"
    assert desk.world.engine.events == [(desk.run_id, f"approval.{approval.approval_id}")]
    events = await desk.world.deps.events.read("contoso", desk.run_id, after_seq=0, limit=50)
    assert events[-1].type == "approval.granted"
    assert "fine" not in json.dumps([event.data for event in events])
    records = await desk.world.audit.read("contoso", after_seq=0, limit=50)
    assert "fine" not in json.dumps([record.body for record in records])


async def test_a_no_is_stored_as_one(desk: Desk) -> None:
    approval = await desk.ask()
    assert (await desk.answer(decision="reject")).json["status"] == "refused"
    assert (await desk.stored(approval)).status is ApprovalStatus.REFUSED


async def test_the_same_answer_again_is_the_same_and_another_one_is_refused(desk: Desk) -> None:
    await desk.ask()
    first = await desk.answer()
    assert (await desk.answer()).json == first.json
    assert (await desk.audit()).count("approval.granted") == 1
    for other in ({"decision": "reject"}, {"token": desk.world.token(user="eve", roles=APPROVER)}):
        refused = await desk.answer(**other)
        assert (refused.status, refused.json["code"]) == (409, "approval.closed")


async def test_the_requester_cannot_answer_whatever_their_roles(desk: Desk) -> None:
    approval = await desk.ask()
    refused = await desk.answer(token=desk.world.token(roles=(*APPROVER, Role.RUNS_SUBMIT, Role.TENANTS_ADMIN)))
    assert (refused.status, refused.json["code"]) == (403, "approval.self")
    assert (await desk.stored(approval)).is_pending


async def test_an_app_cannot_answer(desk: Desk) -> None:
    approval = await desk.ask()
    refused = await desk.answer(token=desk.ben(kind="app"))
    assert (refused.status, refused.json["code"]) == (403, "approval.app_only")
    assert (await desk.stored(approval)).is_pending


async def test_without_the_role_nobody_answers(desk: Desk) -> None:
    await desk.ask()
    refused = await desk.answer(token=desk.world.token(user="eve", roles=(Role.RUNS_READ, Role.RUNS_SUBMIT)))
    assert (refused.status, refused.json["code"]) == (403, "auth.role_missing")


async def test_another_tenants_question_does_not_exist(desk: Desk) -> None:
    approval = await desk.ask()
    refused = await desk.answer(token=desk.world.token("fabrikam", roles=APPROVER), approval_id=approval.approval_id)
    assert (refused.status, refused.json["code"]) == (404, "run.not_found")
    assert (await desk.stored(approval)).is_pending
    assert desk.world.engine.events == []


@pytest.mark.parametrize("subject", ["plan", "first", "nobody", "second%2F0", "@"])
async def test_an_unknown_subject_does_not_exist(desk: Desk, subject: str) -> None:
    await desk.ask()
    refused = await desk.answer(subject)
    assert (refused.status, refused.json["code"]) == (404, "approval.not_found")


async def test_too_late_is_gone(desk: Desk) -> None:
    approval = await desk.ask()
    desk.world.clock.at = approval.expires_at
    refused = await desk.answer()
    assert (refused.status, refused.json["code"]) == (410, "approval.expired")
    assert desk.world.engine.events == []


async def test_after_a_cancel_there_is_nothing_to_answer(desk: Desk) -> None:
    await desk.ask()
    assert (await desk.world.post(f"/api/runs/{desk.run_id}/cancel", {})).status == 202
    refused = await desk.answer()
    assert (refused.status, refused.json["code"]) == (409, "approval.closed")


async def test_an_answer_to_a_question_that_was_replaced_is_refused(desk: Desk) -> None:
    first = await desk.ask()
    desk.world.clock.at += timedelta(seconds=1)
    second = await desk.ask(arguments_sha256="c" * 64)
    stale = await desk.answer(approval_id=first.approval_id)
    assert (stale.status, stale.json["code"]) == (409, "approval.closed")
    assert (await desk.answer()).json["approval_id"] == second.approval_id


async def test_items_are_named(desk: Desk) -> None:
    await desk.ask(item=0)
    second = await desk.ask(item=1, arguments_sha256="c" * 64, waiter=f"{desk.run_id}.map-1-0")
    desk.world.engine.instances[f"{desk.run_id}.map-1-0"] = ("map_orchestrator", None)
    vague = await desk.answer()
    assert (vague.status, vague.json["code"]) == (422, "approval.item_missing")
    assert (await desk.answer(item=7)).status == 404
    answer = await desk.answer(item=1)
    assert (answer.json["approval_id"], answer.json["item"]) == (second.approval_id, 1)
    assert desk.world.engine.events == [(f"{desk.run_id}.map-1-0", f"approval.{second.approval_id}")]


async def test_a_plan_can_be_answered_although_a_step_has_the_same_name(desk: Desk) -> None:
    plan = await desk.ask(None)
    assert (await desk.answer("plan")).json["approval_id"] == plan.approval_id
    desk.world.clock.at += timedelta(seconds=1)
    step = await desk.ask("plan", arguments_sha256="d" * 64)
    assert (await desk.answer("plan")).json["approval_id"] == step.approval_id


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/decision"),
        ({"decision": "yes"}, "/decision"),
        ({"decision": "approve", "item": "1"}, "/item"),
        ({"decision": "approve", "comment": "x" * 1_001}, "/comment"),
        ({"decision": "approve", "by": "tid:somebody"}, "/by"),
    ],
)
async def test_an_answer_that_is_none_is_refused_with_its_place(desk: Desk, body: dict[str, Any], pointer: str) -> None:
    approval = await desk.ask()
    path = f"/api/runs/{desk.run_id}/approvals/second"
    refused = await desk.world.post(path, json.dumps(body).encode(), token=desk.ben())
    assert (refused.status, refused.json["code"]) == (422, "request.invalid")
    assert [error["pointer"] for error in refused.json["errors"]] == [pointer]
    assert (await desk.stored(approval)).is_pending


# -- nothing gets lost


async def test_an_answer_that_could_not_be_announced_is_announced_by_the_sweep(desk: Desk) -> None:
    approval = await desk.ask()
    desk.world.engine.down = True
    assert (await desk.answer()).status == 200
    desk.world.engine.down = False
    assert (await sweep(desk.world.deps, desk.world.engine)).told == 0  # the request may still be at it
    desk.world.clock.at += timedelta(seconds=11)
    assert (await sweep(desk.world.deps, desk.world.engine)).told == 1
    assert desk.world.engine.events == [(desk.run_id, f"approval.{approval.approval_id}")]
    record = StepRecord(tenant_id="contoso", run_id=desk.run_id, step_id="second", status=StepStatus.RUNNING)
    await desk.world.runs.put_step(record)
    assert (await sweep(desk.world.deps, desk.world.engine)).told == 0
    desk.world.clock.at += timedelta(seconds=200)
    assert (await sweep(desk.world.deps, desk.world.engine)).told == 0


async def test_an_approved_plan_is_announced_until_it_is_in_force(desk: Desk) -> None:
    await desk.world.runs.change("contoso", desk.run_id, RunChange(plan_version=0))
    await desk.ask(None)
    await desk.answer("plan")
    desk.world.clock.at += timedelta(seconds=11)
    assert (await sweep(desk.world.deps, desk.world.engine)).told == 1
    await desk.world.runs.change("contoso", desk.run_id, RunChange(plan_version=1))
    assert (await sweep(desk.world.deps, desk.world.engine)).told == 0


async def test_without_an_audit_record_the_answer_is_not_confirmed_and_can_be_repeated(desk: Desk) -> None:
    approval = await desk.ask()
    real = desk.world.audit.append

    async def refuse(entry: Any) -> Any:
        raise LivoaError("store.unavailable", "no disk", status=503)

    desk.world.audit.append = refuse  # type: ignore[method-assign]  # a disk that is full for a moment
    assert (await desk.answer()).status == 503
    desk.world.audit.append = real  # type: ignore[method-assign]  # as above
    again = await desk.answer()
    assert (again.status, again.json["approval_id"]) == (200, approval.approval_id)
    assert (await desk.audit())[-1] == "approval.granted"


async def test_a_void_one_says_why_in_code_and_words(desk: Desk) -> None:
    first = await desk.ask()
    second = await desk.ask(arguments_sha256="c" * 64)
    path = f"/api/runs/{desk.run_id}/approvals"
    shown = (await desk.world.get(path, token=desk.world.token(roles=APPROVER))).json["approvals"]
    void = {one["approval_id"]: one["void"] for one in shown}  # asked at one instant, so in any order
    assert void[first.approval_id]["code"] == "approval.arguments_changed"
    assert void[second.approval_id] is None
    assert "not those that were shown" in void[first.approval_id]["message"]
