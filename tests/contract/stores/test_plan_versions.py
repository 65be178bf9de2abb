"""Versions of a run's plan in every store: one follows the other, each once, and what was in force is kept."""

from __future__ import annotations

import asyncio

import pytest

from engine.domain.approval import ApprovalAnswer
from engine.domain.errors import ConflictError
from engine.domain.events import EventType, PlanEventData, new_event
from engine.domain.run import PlanProvenance, PlanVersion
from engine.domain.status import RunStatus
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import approval, ref, run
from tests.contract.stores.conftest import Stores

FIRST = RunChange(
    status=RunStatus.RUNNING,
    plan_ref=ref("one"),
    plan_hash="one",
    plan_version=1,
    provenance=PlanProvenance(source="caller"),
)
WRITTEN = PlanProvenance(source="model", model="gpt", seen_integrity=1)


def version(number: int, name: str, repair: int = 1) -> PlanVersion:
    return PlanVersion(plan_version=number, plan_ref=ref(name), plan_hash=name, provenance=WRITTEN, repair=repair)


def told(number: int) -> list[object]:
    data = PlanEventData(plan_version=number)
    return [new_event(EventType.PLAN_REPAIRED, data, f"plan.repaired/{number}")]


async def started(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    await stores.runs.change("contoso", "run-1", FIRST)


async def test_a_version_replaces_the_one_before_it_which_is_kept(stores: Stores) -> None:
    await started(stores)
    for number, name in ((2, "two"), (3, "three")):
        change = RunChange(next_plan=version(number, name, number - 1), repairs_decided=number - 1)
        await stores.runs.change("contoso", "run-1", change, told(number))  # type: ignore[arg-type]  # events
    current = await stores.runs.get("contoso", "run-1")
    assert current is not None
    assert (current.plan_version, current.plan_hash, current.plan_ref) == (3, "three", ref("three"))
    assert (current.provenance, current.plan_repair, current.repairs_decided) == (WRITTEN, 2, 2)
    assert [(one.plan_version, one.plan_hash, one.repair) for one in current.earlier_plans] == [
        (1, "one", 0),
        (2, "two", 1),
    ]
    assert current.earlier_plans[0].provenance.source == "caller"
    log = await stores.events.read("contoso", "run-1", after_seq=0, limit=10)
    assert [event.data["plan_version"] for event in log] == [2, 3]


@pytest.mark.parametrize("number", [1, 3])
async def test_a_version_that_does_not_follow_the_one_in_force_changes_nothing(stores: Stores, number: int) -> None:
    await started(stores)
    before = await stores.runs.get("contoso", "run-1")
    for change in (RunChange(next_plan=version(number, "x")), RunChange(proposed_plan=version(number, "x"))):
        with pytest.raises(ConflictError) as caught:
            await stores.runs.change("contoso", "run-1", change, told(number))  # type: ignore[arg-type]  # events
        assert caught.value.code == "run.conflict"
    assert await stores.runs.get("contoso", "run-1") == before
    assert await stores.events.read("contoso", "run-1", after_seq=0, limit=10) == ()


async def test_of_several_writers_at_once_one_puts_its_version_in_force(stores: Stores) -> None:
    await started(stores)

    async def put(name: str) -> bool:
        change = RunChange(next_plan=version(2, name), repairs_decided=1)
        try:
            await stores.runs.change("contoso", "run-1", change)
        except ConflictError:
            return False
        return True

    names = [f"v{index}" for index in range(6)]
    won = [name for name, stands in zip(names, await asyncio.gather(*map(put, names)), strict=True) if stands]
    current = await stores.runs.get("contoso", "run-1")
    assert current is not None
    assert [current.plan_hash] == won
    assert len(current.earlier_plans) == 1


async def test_a_repair_that_was_decided_stays_so(stores: Stores) -> None:
    await started(stores)
    await stores.runs.change("contoso", "run-1", RunChange(repairs_decided=1))
    for change in (RunChange(repairs_decided=1), RunChange(next_plan=version(2, "two"), repairs_decided=1)):
        with pytest.raises(ConflictError):
            await stores.runs.change("contoso", "run-1", change)
    await stores.runs.change("contoso", "run-1", RunChange(next_plan=version(2, "two", 2), repairs_decided=2))
    current = await stores.runs.get("contoso", "run-1")
    assert current is not None
    assert (current.plan_version, current.plan_repair, current.repairs_decided) == (2, 2, 2)


async def test_a_proposed_version_is_not_in_force_and_goes_when_one_is(stores: Stores) -> None:
    await started(stores)
    held = await stores.runs.change("contoso", "run-1", RunChange(proposed_plan=version(2, "two")))
    assert (held.plan_version, held.plan_hash, held.proposed_plan) == (1, "one", version(2, "two"))
    done = await stores.runs.change("contoso", "run-1", RunChange(next_plan=version(2, "two"), repairs_decided=1))
    assert (done.plan_version, done.plan_hash, done.proposed_plan) == (2, "two", None)


async def test_a_run_whose_repair_is_asked_about_goes_on_running_after_the_answer(stores: Stores) -> None:
    await started(stores)
    question = approval(stores.clock.now(), None, plan_version=2)
    await stores.approvals.request(question)
    waiting = await stores.runs.get("contoso", "run-1")
    assert waiting is not None
    assert waiting.status is RunStatus.AWAITING_APPROVAL
    answer = ApprovalAnswer(granted=True, by="tid:ben")
    await stores.approvals.answer("contoso", "run-1", question.approval_id, answer)
    going_on = await stores.runs.get("contoso", "run-1")
    assert going_on is not None
    assert going_on.status is RunStatus.RUNNING
