"""A run that comes to nothing undoes what it did, through the real SDK."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.orchestrators.test_run_orchestrator import OK, started, steps_of, world_of
from tests.unit.orchestrators.world import World

UNDO = {"undo": True}
CHAIN = steps_of("a", "b:a", "c:b", "d:c", a=UNDO, b=UNDO, d=UNDO)


def _until(step_id: str, outcome: dict[str, Any]) -> Any:
    """Every step succeeds but this one."""
    return lambda value: (1.0, outcome if value["step_id"] == step_id else OK)


def _undone(world: World) -> list[str]:
    return [value["step_id"] for value in started(world, "undo_step")]


@pytest.mark.parametrize("outcome", [{"status": "failed", "code": "x.y"}, {"status": "denied", "code": "policy.x"}])
def test_what_succeeded_is_undone_last_first_before_the_end_is_recorded(outcome: dict[str, Any]) -> None:
    needed = steps_of("a", "b:a", "c:b", a=UNDO | {"optional": True}, b=UNDO)
    world = world_of(needed, _until("c", outcome), undo_step=(0.5, {"status": "undone"}), compose_answer=(0.1, None))
    run = world.run("run-1")
    # The answer cannot be composed, so the run has failed although two of its steps succeeded.
    assert run.output["status"] == "failed"
    assert _undone(world) == ["b", "a"]
    assert [call.name for call in world.calls][-3:] == ["undo_step", "undo_step", "finish_run"]
    assert "not_undone" not in started(world, "finish_run")[0]


def test_a_partial_run_keeps_what_it_did() -> None:
    world = world_of(CHAIN, _until("d", {"status": "failed", "code": "x.y"}))
    assert world.run("run-1").output["status"] == "partial"
    assert _undone(world) == []


def test_a_cancelled_run_undoes_what_it_did_and_tells_what_still_stands() -> None:
    """Retries are used up for one step; the others are undone all the same, a large map in several calls."""
    answers = {"a": {"status": "undone"}, "b": {"status": "failed", "code": "agent.busy", "retryable": True}}
    world = world_of(CHAIN, _until("", OK), undo_step=lambda value: (0.1, _more(value) or answers[value["step_id"]]))
    world.raise_event("run-1", "cancel", 2.5)
    world.raise_event("run-1", "cancel", 6)
    run = world.run("run-1")
    assert run.output["status"] == "cancelled"
    assert _undone(world) == ["b"] * 5 + ["a"] * 3
    assert started(world, "finish_run")[0]["not_undone"] == {"b": "agent.busy"}


def _more(value: dict[str, Any]) -> dict[str, Any] | None:
    return {"status": "more"} if value["step_id"] == "a" and value["look"] < 2 else None


def test_an_undoing_that_makes_no_sense_or_raises_is_reported() -> None:
    def undo(value: dict[str, Any]) -> tuple[float, Any]:
        return 0.1, ValueError("x") if value["step_id"] == "a" else {"status": "perhaps"}

    world = world_of(CHAIN, _until("", OK), undo_step=undo)
    world.raise_event("run-1", "cancel", 2.5)
    world.run("run-1")
    told = {"a": "activity.crashed", "b": "run.malformed_outcome"}
    assert started(world, "finish_run")[0]["not_undone"] == told
