"""Handing on calls: however often it is asked, what is over is not begun again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from activities.apart import start_steps

PART = {"call": "part-3-0", "work": {"part": "run-1.map-3-0", "input": {}}}
STEP = {"call": "perform-1-1-0", "work": {"activity": "perform_step", "input": {}}}


class Engine:
    """The client of a durable engine: it replaces an instance that is over, and refuses one that is not."""

    def __init__(self) -> None:
        self.status: dict[str, str] = {}
        self.started: list[str] = []
        self.lost_answers = 0

    async def start_new(self, name: str, instance_id: str = "", client_input: Any = None) -> str:
        if self.status.get(instance_id) == "Running":
            raise RuntimeError("it runs already")
        self.status[instance_id] = "Running"
        self.started.append(instance_id)
        if self.lost_answers:
            self.lost_answers -= 1
            raise OSError("the answer was lost")
        return instance_id

    async def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> None:
        raise AssertionError("nothing is told here")

    async def get_status(self, instance_id: str) -> Any:
        status = self.status.get(instance_id)
        output = {"status": "failed", "code": "map.item_failed"} if status == "Completed" else None
        return SimpleNamespace(instance_id=instance_id if status else None, runtime_status=status, output=output)


def asked(*starts: dict[str, Any], again: bool = False) -> dict[str, Any]:
    return {"tenant_id": "contoso", "run_id": "run-1", "again": again, "starts": list(starts)}


@pytest.mark.parametrize("start", [PART, STEP])
@pytest.mark.parametrize("again", [False, True])
async def test_a_call_that_is_over_is_not_begun_again_by_a_second_delivery(start: dict[str, Any], again: bool) -> None:
    """The items of a part that stopped at a failed one were never begun: run again, it would begin them now."""
    engine = Engine()
    assert await start_steps(asked(start), engine) == {"ended": {}}
    engine.status[f"run-1.{start['call']}"] = "Completed"
    ended = await start_steps(asked(start, again=again), engine)
    assert ended == {"ended": {start["call"]: {"status": "failed", "code": "map.item_failed"}}}
    assert engine.started == [f"run-1.{start['call']}"]


async def test_a_call_whose_start_got_no_answer_is_begun_once() -> None:
    engine = Engine()
    engine.lost_answers = 1
    assert await start_steps(asked(PART, STEP), engine) == {"ended": {}}
    assert sorted(engine.started) == ["run-1.part-3-0", "run-1.perform-1-1-0"]
