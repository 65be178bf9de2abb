"""Outcomes of calls that are carried out apart come as events, which the SDK's client encodes once more."""

from __future__ import annotations

import json

import pytest

from engine.domain.outcomes import Dispatched, Failed, StepOutcome, Succeeded
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
