"""An intent never stays without a word on how it ended, however the process that held it went."""

from __future__ import annotations

import pytest

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.execute import ExecuteRequest, ExecuteResponse
from engine.domain.outcomes import Succeeded
from engine.domain.status import RunStatus
from engine.evidence import verify
from engine.ports.run_store import RunChange
from tests.support.world import World, doubled, plan_of, step


class KilledError(BaseException):
    """The process ends here: no handler runs, nothing is written."""


def killed(request: ExecuteRequest) -> ExecuteResponse:
    raise KilledError


@pytest.fixture
def world() -> World:
    return World()


async def die_in_the_call(world: World, attempt: int = 1) -> None:
    world.invoker.behaviours["mail.send"] = killed
    with pytest.raises(KilledError):
        await world.perform("tell", attempt)
    world.invoker.behaviours["mail.send"] = doubled


async def test_an_intent_whose_process_was_killed_gets_its_word_when_the_run_ends(world: World) -> None:
    await world.submit(plan_of(step("tell", "mail.send")))
    await die_in_the_call(world)
    assert (await world.audit())[-1] == "dispatch.intended"
    await world.finish(RunStatus.FAILED, steps={"failed": ["tell"]}, codes={"tell": "activity.crashed"})
    assert (await world.audit())[-2:] == ["result.unknown", "run.finished"]
    records = await world.deps.audit.read("contoso", after_seq=0, limit=99)
    intent, word = records[-3], records[-2]
    assert word.body == {
        "intent_seq": intent.seq, "step": "tell", "attempt": 1, "capability": "mail.send", "idempotency_key": "run-1/tell",
    }  # fmt: skip
    assert verify(records, "contoso") == []


async def test_a_call_that_is_delivered_again_writes_the_result_itself(world: World) -> None:
    await world.submit(plan_of(step("tell", "mail.send")))
    await die_in_the_call(world)
    assert await world.perform("tell") == Succeeded()
    await world.finish(RunStatus.SUCCEEDED)
    assert "result.unknown" not in await world.audit()


async def test_only_the_attempt_that_was_given_up_is_unknown(world: World) -> None:
    await world.submit(plan_of(step("tell", "mail.send")))
    await die_in_the_call(world)
    assert await world.perform("tell", attempt=2) == Succeeded()
    await world.finish(RunStatus.SUCCEEDED)
    unknown = [
        r.body["attempt"]
        for r in await world.deps.audit.read("contoso", after_seq=0, limit=99)
        if r.type is AuditType.RESULT_UNKNOWN
    ]
    assert unknown == [1]


async def test_finishing_twice_says_it_once(world: World) -> None:
    await world.submit(plan_of(step("tell", "mail.send")))
    await die_in_the_call(world)
    change, world.runs.change = world.runs.change, _refuse  # type: ignore[method-assign]
    with pytest.raises(OSError, match="killed before the last write"):
        await world.finish(RunStatus.FAILED)
    world.runs.change = change  # type: ignore[method-assign]
    await world.finish(RunStatus.FAILED)
    assert (await world.audit()).count("result.unknown") == 1


async def test_a_call_announced_after_the_run_was_closed_gets_its_word_from_the_next_delivery(world: World) -> None:
    await world.submit(plan_of(step("tell", "mail.send")))

    append, ended = world.deps.audit.append, False

    async def closed_first(entry: AuditEntry) -> object:
        nonlocal ended
        if entry.type is AuditType.DISPATCH_INTENDED and not ended:
            ended = True
            await world.finish(RunStatus.CANCELLED, code="run.cancelled")
        return await append(entry)

    world.deps.audit.append = closed_first  # type: ignore[assignment,method-assign]
    world.invoker.behaviours["mail.send"] = killed
    with pytest.raises(KilledError):
        await world.perform("tell")
    assert (await world.audit())[-2:] == ["run.finished", "dispatch.intended"]
    await world.perform("tell")
    await world.perform("tell")
    assert (await world.audit())[-2:] == ["dispatch.intended", "result.unknown"]


async def _refuse(*_: object, **__: object) -> None:
    raise OSError("killed before the last write")


async def test_a_failed_call_is_known_and_a_prompt_without_a_completion_is_not(world: World) -> None:
    await world.submit(plan_of(step("tell", "mail.send")))
    for entry_id, kind in (
        ("run-1/a#1/dispatch.intended", AuditType.DISPATCH_INTENDED),
        ("run-1/a#1/dispatch.result/agent.busy", AuditType.DISPATCH_RESULT),
        ("run-1/models/plan/1/planner.prompt", AuditType.PLANNER_PROMPT),
    ):
        await world.deps.audit.append(
            AuditEntry(
                tenant_id="contoso", entry_id=entry_id, type=kind, at=world.clock.now(), run_id="run-1", actor="t:a"
            )
        )
    await world.finish(RunStatus.FAILED)
    ids = [r.entry_id for r in await world.deps.audit.read("contoso", after_seq=0, limit=99)]
    assert [entry_id for entry_id in ids if entry_id.endswith("result.unknown")] == [
        "run-1/models/plan/1/result.unknown"
    ]


async def test_the_end_of_a_degraded_run_says_so(world: World) -> None:
    await world.submit(plan_of(step("a")))
    await world.runs.change("contoso", "run-1", RunChange(degraded_reason="no model is configured"))
    await world.finish(RunStatus.SUCCEEDED)
    last = (await world.deps.audit.read("contoso", after_seq=0, limit=99))[-1]
    assert (last.type, last.body["degraded"]) == (AuditType.RUN_FINISHED, True)
