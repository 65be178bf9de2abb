"""A plan that says how its steps are undone, from the check to the recorded end: the scheduler and the activities together."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from activities import steps
from engine.domain.status import RunStatus
from engine.scheduler import RunRef, RunState, decide, evolve, new_run, not_undone, step_report
from engine.scheduler.answers import run_outcome, step_outcome
from engine.scheduler.commands import (
    CancelRequested,
    FinishRun,
    Issued,
    PerformStep,
    PlanRun,
    RunAnswered,
    StepAnswered,
    Tick,
    UndoStep,
)
from engine.step_runner import finish_run
from tests.support.world import World, doubled, failing, plan_of, step

REF = {"tenant_id": "contoso", "run_id": "run-1"}


def _undo(step_id: str) -> dict[str, Any]:
    return {"capability": "mail.send", "inputs": {"n": {"$ref": f"steps.{step_id}#/n"}}}


async def _answer(world: World, state: RunState, call: Any, planned: dict[str, Any]) -> Any:
    now = world.clock.now()
    if isinstance(call, PlanRun):
        return RunAnswered(call, run_outcome(call, planned), now)
    if isinstance(call, FinishRun):
        ending = {"status": call.status.value, "code": call.code, "not_undone": not_undone(state)}
        return RunAnswered(
            call, run_outcome(call, await finish_run(REF | ending | step_report(state), world.deps)), now
        )
    assert state.board is not None
    asked = REF | {"step_id": state.board.graph.steps[call.step].id, "attempt": call.attempt}
    if isinstance(call, UndoStep):
        return RunAnswered(call, run_outcome(call, await steps.undo(asked, world.deps)), now)
    assert isinstance(call, PerformStep)
    return StepAnswered(call, step_outcome(await steps.perform(asked, world.deps)), now)


async def _run(world: World, plan: dict[str, Any], *, cancel_after: str) -> None:
    planned = await world.submit(plan)
    state = new_run(RunRef("contoso", "run-1", world.clock.now() + timedelta(hours=1)))
    while not state.is_over:
        commands = decide(state, world.clock.now())
        state = evolve(state, Issued(commands, world.clock.now()))
        calls = [command for command in commands if hasattr(command, "attempt")]
        for call in calls:
            state = evolve(state, await _answer(world, state, call, planned))
            if isinstance(call, PerformStep) and cancel_after in step_report(state)["steps"].get("succeeded", ()):
                state = evolve(state, CancelRequested(world.clock.now()))
        if not calls:
            assert state.armed_at is not None
            world.clock.advance(max((state.armed_at - world.clock.now()).total_seconds(), 0.001))
            state = evolve(state, Tick(world.clock.now()))


async def test_a_run_cancelled_between_two_steps_undoes_the_first_and_tells_what_stands() -> None:
    """The undoing of one step is refused; the other is undone all the same, with the output that the store has."""
    world = World()
    refused = failing("mail.gone", retryable=False)
    world.invoker.behaviours["mail.send"] = lambda asked: refused(asked) if asked.step_id == "b" else doubled(asked)
    plan = plan_of(
        step("a", n=2, compensate_with=_undo("a")),
        step("b", n={"$ref": "steps.a#/n"}, compensate_with=_undo("b")),
        step("c", n={"$ref": "steps.b#/n"}),
    )
    await _run(world, plan, cancel_after="b")
    calls = [(call.idempotency_key, call.inputs["n"]) for call in world.invoker.calls]
    assert calls == [("run-1/a", 2), ("run-1/b", 4), ("run-1/b/undo", 8), ("run-1/a/undo", 4)]
    run = await world.runs.get("contoso", "run-1")
    assert run is not None
    assert (run.status, run.error and run.error.code) == (RunStatus.CANCELLED, "run.cancelled")
    assert run.error is not None
    assert run.error.message.endswith("could not be undone: b (mail.gone)")
    records = {record.step_id: record.status.value for record in await world.runs.steps("contoso", "run-1")}
    assert records == {
        "a": "succeeded",
        "a.undo": "succeeded",
        "b": "succeeded",
        "b.undo": "failed",
        "c": "cancelled",
    }
    budget = await world.deps.budgets.state("contoso", "run-1")
    assert budget is not None
    assert (budget.reserved_micro_usd, budget.spent_micro_usd) == (0, 300)
