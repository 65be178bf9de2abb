"""What a result tells the breaker, and what follows a failure, as plain decisions."""

from __future__ import annotations

import pytest

from engine.limits.breaker import CallOutcome
from engine.ports.models import FailureCode, ModelFailure
from planner_graph.model_calls.moves import GatewayRules, move_after, outcome_of
from tests.support.scripted_models import reply

RULES = GatewayRules()


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("model.timeout", "failure"),
        ("model.unavailable", "failure"),
        ("model.rate_limited", "failure"),
        ("model.unauthorised", "neutral"),
        ("model.not_configured", "neutral"),
        ("model.context_too_long", "neutral"),
        ("model.refused", "success"),
        ("model.content_filtered", "success"),
        ("model.truncated", "success"),
        ("model.invalid_output", "success"),
    ],
)
def test_only_what_the_server_suffers_from_is_its_failure(code: FailureCode, outcome: CallOutcome) -> None:
    assert outcome_of(ModelFailure(code, "no", retryable=True), 90.0, RULES) == outcome


def test_a_request_that_the_server_will_not_take_says_nothing_about_the_server() -> None:
    assert outcome_of(ModelFailure("model.unavailable", "no"), 90.0, RULES) == "neutral"


def test_a_deployment_that_let_the_time_run_out_is_asked_again_only_when_no_other_is_left() -> None:
    failure = ModelFailure("model.timeout", "no", retryable=True)
    assert move_after(failure, 1, key="k", left_s=150.0, is_last=False, rules=RULES) == "next"
    assert isinstance(move_after(failure, 1, key="k", left_s=150.0, is_last=True, rules=RULES), float)


def test_a_time_out_that_the_caller_left_no_time_for_is_nobodys_failure() -> None:
    assert outcome_of(ModelFailure("model.timeout", "no"), 2.0, RULES) == "neutral"


def test_a_reply_that_took_long_counts_half() -> None:
    assert outcome_of(reply(latency_s=61.0), 90.0, RULES) == "slow"
    assert outcome_of(reply(latency_s=59.0), 90.0, RULES) == "success"


@pytest.mark.parametrize("retry_after_s", [None, 0.0, 5.0, 60.0, 1e9])
@pytest.mark.parametrize("is_last", [True, False])
def test_no_pause_outlasts_the_deadline_or_is_shorter_than_asked(retry_after_s: float | None, is_last: bool) -> None:
    for left_s in (0.0, 1.0, 5.5, 20.0, 240.0):
        failure = ModelFailure("model.rate_limited", "no", retryable=True, retry_after_s=retry_after_s)
        for attempt in (1, 2, 3):
            move = move_after(failure, attempt, key="k", left_s=left_s, is_last=is_last, rules=RULES)
            if isinstance(move, float):
                assert (retry_after_s or 0.0) <= move <= left_s - RULES.min_call_s
                assert attempt < 3
                assert is_last or move <= RULES.patience_s
            else:
                assert move == "next"
