"""Outcomes of calls that are carried out apart come as events, which the SDK's client encodes once more."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from engine.domain.outcomes import (
    AwaitingApproval,
    Cancelled,
    Denied,
    Dispatched,
    Expanded,
    Failed,
    Skipped,
    StepOutcome,
    Succeeded,
    Suspended,
    Waiting,
)
from engine.scheduler.answers import step_outcome


@pytest.mark.parametrize(
    "outcome",
    [Succeeded(), Failed(code="agent.timeout", retryable=True), Dispatched(event="e", look_by="2026-11-22T12:00:00Z")],
)
def test_an_outcome_is_the_same_as_value_and_as_text(outcome: StepOutcome) -> None:
    value = outcome.model_dump(mode="json", exclude_none=True)
    assert step_outcome(value) == step_outcome(json.dumps(value)) == outcome


@pytest.mark.parametrize("text", ["", "nonsense", "null", '"succeeded"', "[]", '{"status": "fine"}'])
def test_a_text_that_is_none_is_malformed(text: str) -> None:
    assert step_outcome(text) == Failed(code="step.malformed_outcome")


ALL: tuple[StepOutcome, ...] = (
    Succeeded(item_count=3),
    Failed(code="agent.busy", retryable=True, retry_after_s=7),
    Denied(code="policy.denied"),
    Skipped(code="step.when_false"),
    Cancelled(),
    Waiting(until_at="2026-11-22T12:00:00Z", left_s=4.5),
    AwaitingApproval(approval_id="a", expires_at="2026-11-22T12:00:00Z"),
    Dispatched(event="e", look_by="2026-11-22T12:00:00Z"),
    Suspended(number=1),
    Expanded(item_count=2),
)


def test_every_outcome_is_there() -> None:
    assert {type(one) for one in ALL} == set(get_args(get_args(StepOutcome)[0]))


@pytest.mark.parametrize("outcome", ALL, ids=lambda one: one.status)
def test_what_a_later_build_says_beside_what_we_know_is_passed_over(outcome: StepOutcome) -> None:
    """While two builds are on one hub an answer of the later one may reach an orchestrator of the former."""
    value = outcome.model_dump(mode="json", exclude_none=True) | {"said_by_a_later_build": {"more": [1]}}
    assert step_outcome(value) == step_outcome(json.dumps(value)) == outcome


@pytest.mark.parametrize("outcome", ALL, ids=lambda one: one.status)
def test_what_we_know_is_still_read_strictly(outcome: StepOutcome) -> None:
    value = outcome.model_dump(mode="json", exclude_none=True)
    for name in value.keys() - {"status"}:
        for wrong in ([], {"a": 1}, "1" if not isinstance(value[name], str) else 1):
            assert step_outcome(value | {name: wrong}) == Failed(code="step.malformed_outcome"), name
