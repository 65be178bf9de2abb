"""`./livoa retention`: batch after batch until nothing is left, and never for ever."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cli.api_double import RUN_ID

REPORT = {
    "tenant_id": "contoso", "dry_run": False, "legal_hold": False, "instances": 0, "contents": 0, "runs": 0,
    "ownerless": 0, "failed": 0, "more": False,
}  # fmt: skip


def script(double: Any, *reports: dict[str, Any]) -> None:
    left = iter(reports)
    double.scripts["POST /api/retention"] = lambda asked: (200, REPORT | next(left))


def asked(double: Any) -> list[Any]:
    return [request["body"] for request in double.heard if request["path"] == "/api/retention"]


def test_a_dry_run_asks_once_and_says_what_is_due(connected, double):
    script(double, {"runs": 200, "more": True, "dry_run": True})
    outcome = connected("retention", "run", "--dry-run")
    assert (outcome.code, asked(double)) == (0, [{"dry_run": True}])
    assert "contoso: 200 runs gone" in outcome.out


def test_batches_are_asked_for_until_there_are_no_more_and_added_up(connected, double):
    script(double, {"runs": 200, "more": True}, {"runs": 200, "instances": 3, "more": True}, {"runs": 1})
    outcome = connected("retention", "run", "--json")
    assert outcome.code == 0
    assert (outcome.json["runs"], outcome.json["instances"], outcome.json["more"]) == (401, 3, False)
    assert asked(double) == [{"dry_run": False}] * 3


def test_what_failed_is_exit_code_1(connected, double):
    script(double, {"runs": 1, "failed": 2})
    assert connected("retention", "run").code == 1


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({}, "nothing was due"),
        ({"legal_hold": True}, "a legal hold keeps everything"),
        ({"audit_older_since": "2019-01-01T00:00:00Z"}, "the application removes none"),
    ],
)
def test_other_answers_are_told(connected, double, report, words):
    script(double, report)
    outcome = connected("retention", "run")
    assert words in outcome.out + outcome.err


def test_a_run_is_erased(connected, double):
    double.scripts[f"DELETE /api/runs/{RUN_ID}"] = lambda asked: (200, {"run_id": RUN_ID, "objects": 7})
    outcome = connected("retention", "erase", "last")
    assert outcome.code == 0
    assert "7 objects" in outcome.out
    assert double.heard[-1]["method"] == "DELETE"


def test_a_run_that_has_just_ended_is_asked_for_again(connected, double, monkeypatch):
    monkeypatch.setattr("cli.commands.retention._PAUSE_S", 0.0)
    problem = {"status": 409, "code": "run.winding_up", "title": "Conflict", "detail": "in a moment"}
    answers = iter([(409, problem), (409, problem), (200, {"run_id": RUN_ID, "objects": 7})])
    double.scripts[f"DELETE /api/runs/{RUN_ID}"] = lambda asked: next(answers)
    assert connected("retention", "erase", RUN_ID, "--json").json == {"run_id": RUN_ID, "objects": 7}
    double.scripts[f"DELETE /api/runs/{RUN_ID}"] = lambda asked: (409, problem)
    outcome = connected("retention", "erase", RUN_ID, "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (1, "run.winding_up")


def test_a_refusal_is_told(connected, double):
    problem = {"status": 409, "code": "retention.held", "title": "Conflict", "detail": "A legal hold keeps this run."}
    double.scripts[f"DELETE /api/runs/{RUN_ID}"] = lambda asked: (409, problem)
    outcome = connected("retention", "erase", RUN_ID, "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (1, "retention.held")
