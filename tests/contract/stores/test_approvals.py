"""Approvals, in every implementation: asked once, answered once, bound to one question, one transaction with event and status."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest

from engine.domain.approval import VOID_WORDS, Approval, ApprovalAnswer, ApprovalStatus
from engine.domain.errors import ConflictError, LivoaError, NotFoundError
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import approval, run, step
from tests.contract.stores.conftest import Stores

YES = ApprovalAnswer(granted=True, by="tid:ben")
NO = ApprovalAnswer(granted=False, by="tid:ben")


def question(stores: Stores, step_id: str | None = "mail", arguments: str = "a", **changes: Any) -> Approval:
    return approval(stores.clock.now(), step_id, arguments, **changes)


@pytest.fixture
async def started(stores: Stores) -> Stores:
    """A store with one run that is under way."""
    await stores.runs.create(run(status=RunStatus.RUNNING), [new_event(EventType.RUN_ACCEPTED, RunEventData())], None)
    return stores


async def events(stores: Stores) -> list[str]:
    return [event.type.value for event in await stores.events.read("contoso", "run-1", after_seq=0, limit=100)]


async def status(stores: Stores) -> RunStatus:
    found = await stores.runs.get("contoso", "run-1")
    assert found is not None
    return found.status


async def test_asking_twice_is_asking_once(started: Stores) -> None:
    first = await started.approvals.request(question(started))
    started.clock.advance(5)
    again = await started.approvals.request(question(started))
    assert again == first
    assert await started.approvals.of_run("contoso", "run-1") == (first,)
    assert await events(started) == ["run.accepted", "approval.requested"]


async def test_an_answer_comes_with_its_event_and_its_time(started: Stores) -> None:
    asked = await started.approvals.request(question(started))
    started.clock.advance(60)
    granted = await started.approvals.answer("contoso", "run-1", asked.approval_id, YES)
    assert granted.status is ApprovalStatus.GRANTED
    assert (granted.decided_by, granted.decided_at) == ("tid:ben", started.clock.now())
    assert await started.approvals.get("contoso", "run-1", asked.approval_id) == granted
    assert (await events(started))[-1] == "approval.granted"


async def test_the_same_answer_again_changes_nothing_and_another_is_refused(started: Stores) -> None:
    asked = await started.approvals.request(question(started))
    first = await started.approvals.answer("contoso", "run-1", asked.approval_id, YES)
    started.clock.advance(10)
    assert await started.approvals.answer("contoso", "run-1", asked.approval_id, YES) == first
    for other in (NO, ApprovalAnswer(granted=True, by="tid:eve")):
        with pytest.raises(ConflictError) as refused:
            await started.approvals.answer("contoso", "run-1", asked.approval_id, other)
        assert refused.value.code == "approval.closed"
    assert (await events(started)).count("approval.granted") == 1


async def test_of_two_answers_at_once_one_counts(started: Stores) -> None:
    asked = await started.approvals.request(question(started))
    results = await asyncio.gather(
        *(started.approvals.answer("contoso", "run-1", asked.approval_id, each) for each in (YES, NO) * 4),
        return_exceptions=True,
    )
    statuses = {result.status for result in results if isinstance(result, Approval)}
    assert len(statuses) == 1
    assert len([name for name in await events(started) if name in ("approval.granted", "approval.refused")]) == 1


async def test_an_answer_too_late_is_none(started: Stores) -> None:
    asked = await started.approvals.request(question(started))
    started.clock.advance(3600)
    with pytest.raises(LivoaError) as refused:
        await started.approvals.answer("contoso", "run-1", asked.approval_id, YES)
    assert (refused.value.code, refused.value.status) == ("approval.expired", 410)
    expired = await started.approvals.request(question(started))
    assert expired.status is ApprovalStatus.EXPIRED
    assert (await events(started))[-1] == "approval.expired"
    with pytest.raises(LivoaError, match="over"):
        await started.approvals.answer("contoso", "run-1", asked.approval_id, YES)


async def test_a_grant_outlives_the_time_to_answer(started: Stores) -> None:
    asked = await started.approvals.request(question(started))
    await started.approvals.answer("contoso", "run-1", asked.approval_id, YES)
    started.clock.advance(7200)
    assert (await started.approvals.request(question(started))).status is ApprovalStatus.GRANTED


@pytest.mark.parametrize(
    ("change", "why"),
    [({"arguments": "b"}, "approval.arguments_changed"), ({"policy_set_hash": "s2"}, "approval.policies_changed")],
)
async def test_another_question_of_the_same_step_voids_the_answer(
    started: Stores, change: dict[str, str], why: str
) -> None:
    asked = await started.approvals.request(question(started))
    await started.approvals.answer("contoso", "run-1", asked.approval_id, YES)
    other = await started.approvals.request(question(started, **change))
    assert other.approval_id != asked.approval_id
    assert other.status is ApprovalStatus.PENDING
    before = await started.approvals.get("contoso", "run-1", asked.approval_id)
    assert before is not None
    assert (before.status, before.void_code) == (ApprovalStatus.VOID, why)
    told = (await started.events.read("contoso", "run-1", after_seq=0, limit=100))[-2].data
    assert (told["code"], told["message"]) == (why, VOID_WORDS[before.void_code])
    with pytest.raises(ConflictError, match=re.escape(VOID_WORDS[before.void_code])):
        await started.approvals.answer("contoso", "run-1", asked.approval_id, NO)
    assert (await events(started))[-2:] == ["approval.voided", "approval.requested"]
    assert (await started.approvals.request(question(started))).status is ApprovalStatus.VOID


async def test_items_and_steps_do_not_void_one_another(started: Stores) -> None:
    for each in (question(started, item=0), question(started, item=1), question(started), question(started, "other")):
        await started.approvals.request(each)
    assert all(each.is_pending for each in await started.approvals.of_run("contoso", "run-1"))


async def test_the_run_waits_for_people_only_when_nothing_of_it_is_under_way(started: Stores) -> None:
    await started.runs.put_step(step("busy"))
    await started.approvals.request(question(started))
    assert await status(started) is RunStatus.RUNNING
    await started.runs.put_step(step("busy", status=StepStatus.SUCCEEDED))
    await started.approvals.request(question(started))
    assert await status(started) is RunStatus.AWAITING_APPROVAL
    await started.runs.put_step(step("next"))
    assert await status(started) is RunStatus.RUNNING


async def test_a_map_is_under_way_when_one_of_its_items_is(started: Stores) -> None:
    await started.runs.put_step(step("each", kind="map", item_count=2))
    await started.runs.put_step(step("each", item=0, kind="call"))
    await started.approvals.request(question(started, "each", item=1))
    assert await status(started) is RunStatus.RUNNING
    await started.runs.put_step(step("each", item=0, kind="call", status=StepStatus.SUCCEEDED))
    await started.approvals.request(question(started, "each", item=1))
    assert await status(started) is RunStatus.AWAITING_APPROVAL


async def test_an_answer_sets_the_run_going_again(started: Stores) -> None:
    asked = await started.approvals.request(question(started))
    assert await status(started) is RunStatus.AWAITING_APPROVAL
    await started.approvals.answer("contoso", "run-1", asked.approval_id, NO)
    assert await status(started) is RunStatus.RUNNING


async def test_a_plan_that_waits_goes_back_to_planning(stores: Stores) -> None:
    await stores.runs.create(run(status=RunStatus.PLANNING), [], None)
    asked = await stores.approvals.request(question(stores, None))
    assert asked.subject == "plan"
    assert await status(stores) is RunStatus.AWAITING_APPROVAL
    await stores.approvals.answer("contoso", "run-1", asked.approval_id, YES)
    assert await status(stores) is RunStatus.PLANNING


@pytest.mark.parametrize("ended", [RunStatus.CANCELLING, RunStatus.CANCELLED])
async def test_after_a_cancel_nothing_is_asked_or_answered(started: Stores, ended: RunStatus) -> None:
    asked = await started.approvals.request(question(started))
    await started.runs.change("contoso", "run-1", RunChange(status=ended))
    with pytest.raises(ConflictError) as closed:
        await started.approvals.answer("contoso", "run-1", asked.approval_id, YES)
    assert closed.value.code == "approval.closed"
    with pytest.raises(ConflictError) as over:
        await started.approvals.request(question(started, "other"))
    assert over.value.code == "run.finished"
    assert (await events(started))[-1] == "approval.requested"


async def test_closing_a_run_voids_what_is_pending_once(started: Stores) -> None:
    pending = await started.approvals.request(question(started))
    done = await started.approvals.request(question(started, "done"))
    await started.approvals.answer("contoso", "run-1", done.approval_id, YES)
    voided = await started.approvals.close("contoso", "run-1")
    assert [(each.approval_id, each.void_code) for each in voided] == [(pending.approval_id, "approval.run_over")]
    assert await started.approvals.close("contoso", "run-1") == ()
    assert (await events(started))[-1] == "approval.voided"
    kept = await started.approvals.get("contoso", "run-1", done.approval_id)
    assert kept is not None
    assert kept.status is ApprovalStatus.GRANTED


async def test_tenants_do_not_see_one_another(started: Stores) -> None:
    asked = await started.approvals.request(question(started))
    assert await started.approvals.get("fabrikam", "run-1", asked.approval_id) is None
    assert await started.approvals.of_run("fabrikam", "run-1") == ()
    assert await started.approvals.pending("fabrikam", limit=10) == ()
    with pytest.raises(NotFoundError):
        await started.approvals.answer("fabrikam", "run-1", asked.approval_id, YES)
    with pytest.raises(NotFoundError) as unknown:
        await started.approvals.answer("contoso", "run-1", "ap-none", YES)
    assert unknown.value.code == "approval.not_found"


async def test_lists_show_what_can_be_answered_and_what_was(started: Stores) -> None:
    first = await started.approvals.request(question(started))
    started.clock.advance(1)
    second = await started.approvals.request(question(started, "other"))
    assert [each.approval_id for each in await started.approvals.pending("contoso", limit=10)] == [
        first.approval_id,
        second.approval_id,
    ]
    assert len(await started.approvals.pending("contoso", limit=1)) == 1
    since = started.clock.now()
    assert await started.approvals.answered_since(since, 10) == ()
    granted = await started.approvals.answer("contoso", "run-1", first.approval_id, YES)
    assert await started.approvals.answered_since(since, 10) == (granted,)
    assert await started.approvals.answered_since(since + timedelta(seconds=1), 10) == ()
    await started.runs.change("contoso", "run-1", RunChange(status=RunStatus.SUCCEEDED))
    assert await started.approvals.pending("contoso", limit=10) == ()
    assert await started.approvals.answered_since(since, 10) == ()
