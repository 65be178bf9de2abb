"""One part of a map: its items end, each attempt starts once, the cap holds, whatever happens."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.outcomes import Cancelled, Denied, Failed, Skipped, StepOutcome, Succeeded, Waiting
from engine.domain.status import StepStatus
from engine.scheduler import PartRef, PartState, decide_part, evolve_part, new_part
from engine.scheduler.backoff import RetryPolicy
from engine.scheduler.commands import CancelRequested, Command, Issued, PerformStep, StepAnswered, Tick, WakeAt
from tests.unit.scheduler.simulate import DEADLINE_AT, REF, START_AT

parts = st.builds(
    PartRef,
    run=st.just(REF),
    step_id=st.just("m"),
    first=st.sampled_from([0, 100]),
    count=st.integers(1, 30),
    concurrency=st.integers(1, 8),
    retry=st.builds(RetryPolicy, st.integers(1, 3), st.sampled_from([0.0, 5.0]), st.just(2.0), st.just(60.0)),
    on_failure=st.sampled_from(["fail", "skip"]),
)


def outcome_of(chooser: random.Random, at: datetime, mood: float) -> StepOutcome:
    if chooser.random() >= mood:
        return Succeeded()
    busy, waiting = Failed(code="agent.busy", retryable=True), Waiting(until_at=(at + timedelta(seconds=9)).isoformat())
    others: list[StepOutcome] = [Failed(code="agent.broken"), Denied(code="policy.x"), Skipped(code="x"), Cancelled()]
    return chooser.choice([busy, busy, waiting, waiting, *others])


def play(ref: PartRef, seed: int, mood: float) -> tuple[PartState, list[PerformStep]]:
    chooser, state, now = random.Random(seed), new_part(ref), START_AT
    open_calls: list[PerformStep] = []
    issued: list[PerformStep] = []
    for _ in range(5_000):
        commands: tuple[Command, ...] = decide_part(state, now)
        assert commands == decide_part(state, now)
        state = evolve_part(state, Issued(commands, now))
        calls = [command for command in commands if isinstance(command, PerformStep)]
        open_calls, issued = open_calls + calls, issued + calls
        assert len(open_calls) <= ref.concurrency or state.board.stopped
        if state.is_over:
            return state, issued
        if chooser.random() < 0.01:
            state = evolve_part(state, CancelRequested(now))
        elif open_calls and chooser.random() < 0.95:
            call = open_calls.pop(chooser.randrange(len(open_calls)))
            now += timedelta(milliseconds=chooser.randrange(1_000))
            answered = StepAnswered(call, outcome_of(chooser, now, mood), now)
            state = evolve_part(state, answered)
            assert evolve_part(state, answered) == state, "a repeated answer changed something"
        else:
            assert state.armed_at is not None
            now = max(now, state.armed_at)
            state = evolve_part(state, Tick(now))
    raise AssertionError("the part does not end")


@given(parts, st.integers(0, 2**32), st.sampled_from([0.0, 0.2, 0.6]))
@settings(max_examples=80, deadline=None)
def test_every_part_ends_within_its_cap_and_starts_each_attempt_of_an_item_once(
    ref: PartRef, seed: int, mood: float
) -> None:
    state, issued = play(ref, seed, mood)
    assert len(issued) == len(set(issued))
    assert {call.item for call in issued} <= set(range(ref.first, ref.first + ref.count))
    statuses = {record.status for record in state.board.records()}
    match state.outcome:
        case Denied():
            assert StepStatus.DENIED in statuses
        case Failed():
            assert StepStatus.FAILED in statuses
        case Cancelled():
            assert StepStatus.CANCELLED in statuses
        case _:
            assert statuses <= {StepStatus.SUCCEEDED, StepStatus.SKIPPED}


def test_a_part_starts_nothing_after_the_deadline() -> None:
    ref = PartRef(REF, "m", 0, 3, 2, RetryPolicy(1, 1.0, 2.0, 60.0), "fail")
    assert [command for command in decide_part(new_part(ref), DEADLINE_AT) if not isinstance(command, WakeAt)] == []
