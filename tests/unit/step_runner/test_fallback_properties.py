"""Whatever the capabilities of a step that falls back answer, and however often it is delivered, its end is told truthfully."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.execute import ExecuteRequest, ExecuteResponse, ExecuteSucceeded, Usage
from engine.domain.outcomes import Failed, StepOutcome, Succeeded
from engine.domain.run import StepRecord
from tests.support.world import World, doubled, failing, plan_of, step

COST_MICRO_USD = 100
ANSWERS: dict[str, Any] = {
    "good": doubled,
    "busy": failing("agent.unreachable"),
    "broken": failing("agent.broken", retryable=False),
    "unfit": lambda _: ExecuteSucceeded(output={"n": "no number"}, usage=Usage(cost_micro_usd=COST_MICRO_USD)),
}


class Script:
    """Answers in turn, and the last of them for ever: as an agent that keeps its answers does, a success is repeated."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.given: list[str] = []

    def __call__(self, request: ExecuteRequest) -> ExecuteResponse:
        kept = next((name for name in self.given if name in ("good", "unfit")), None)
        name = kept or self._names[min(len(self.given), len(self._names) - 1)]
        self.given.append(name)
        answer: ExecuteResponse = ANSWERS[name](request)
        return answer


async def _played(own: list[str], other: list[str], tries: int, deliveries: int) -> tuple[World, StepOutcome]:
    world = World()
    plan = plan_of(step("a", "calc.frail", on_failure="fallback", retry={"max_attempts": tries}))
    assert (await world.submit(plan))["status"] == "planned"
    behaviours: Any = world.invoker.behaviours
    behaviours["calc.frail"], behaviours["calc.double"] = Script(own), Script(other)
    outcome: StepOutcome = Failed(code="none", retryable=True)
    for attempt in range(1, tries + 2):  # as the scheduler goes on: while a failure may be repeated
        told = [await world.perform("a", attempt=attempt) for _ in range(deliveries)]
        assert [each.status for each in told] == [told[0].status] * deliveries
        outcome = told[0]
        if not (isinstance(outcome, Failed) and outcome.retryable):
            break
    return world, outcome


answers = st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(own=answers, other=answers, tries=st.integers(1, 3), deliveries=st.integers(1, 2))
def test_the_end_of_a_step_that_may_fall_back(own: list[str], other: list[str], tries: int, deliveries: int) -> None:
    async def play() -> None:
        world, outcome = await _played(own, other, tries, deliveries)
        record = await world.runs.get_step("contoso", "run-1", "a")
        assert isinstance(record, StepRecord)
        names = [call.capability for call in world.invoker.calls]
        owns, others = names.count("calc.frail"), names.count("calc.double")
        assert names == ["calc.frail"] * owns + ["calc.double"] * others, "nothing goes back to what was given up"
        assert 1 <= owns <= tries
        own_good = "good" in own[:owns] and "unfit" not in own[: own.index("good")]
        assert (others == 0) is own_good
        assert record.status.is_final
        assert isinstance(outcome, Succeeded) is (record.status == "succeeded")
        assert (record.degraded is not None, record.capability == "calc.double") == (others > 0, others > 0)
        assert (await world.events()).count("degraded.entered") == (others > 0)
        assert {call.idempotency_key for call in world.invoker.calls} == {"run-1/a"} | (
            {"run-1/a/fallback"} if others else set()
        )
        state = await world.deps.budgets.state("contoso", "run-1")
        assert state is not None
        assert state.reserved_micro_usd == 0

    asyncio.run(play())
