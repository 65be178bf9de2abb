"""What an agent's typed failure may bring into the engine: a code that is one, and never one of the engine's own."""

import json

import pytest

from engine.adapters.http_agents.answers import RawAnswer, interpret
from engine.domain.execute import ExecuteFailed


def _failed(code: str) -> ExecuteFailed:
    error = {"code": code, "message": "m", "retryable": True, "retry_after_s": 2}
    body = json.dumps({"status": "failed", "error": error}).encode()
    found = interpret(RawAnswer(200, {"content-type": "application/json"}, body))
    assert isinstance(found, ExecuteFailed)
    return found


@pytest.mark.parametrize("code", ["rates.unavailable", "mmm.nothing_spent", "agent.busy", "data.v2.too_many_rows"])
def test_an_agents_own_code_is_kept(code: str) -> None:
    assert _failed(code).error.code == code


@pytest.mark.parametrize(
    "code",
    [
        "policy.denied",
        "run.cancelled",
        "budget.exhausted",
        "Ana Sousa, ana@contoso.example",
        "nodot",
        "a.b\n",
        "A.B",
        "x." + "y" * 61,
    ],
)
def test_any_other_code_is_only_an_error_of_the_agent(code: str) -> None:
    error = _failed(code).error
    assert (error.code, error.retryable, error.retry_after_s) == ("agent.error", True, 2)
