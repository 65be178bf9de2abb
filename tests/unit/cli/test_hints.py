"""What is suggested after a refusal is true, about the run that was meant, and reaches the same host."""

from __future__ import annotations

import json

import pytest

from cli.exit_codes import ExitCode
from cli.paths import ROOT
from cli.problems import Place, problem_of, run_named_in
from tests.unit.cli.api_double import RUN_ID, problem

MAIL = str(ROOT / "catalog" / "samples" / "plans" / "mail_report.json")


@pytest.mark.parametrize(
    ("action", "code", "hint"),
    [
        ("cancel", "run.finished", "./livoa show {run}{again} has its end, ./livoa rerun {run}{again} does it again"),
        ("resume", "run.not_suspended", "./livoa show {run}{again} has where it stands"),
        ("terminate", "run.not_found", "./livoa runs{again} lists the runs you may see"),
    ],
)
def test_what_is_suggested_is_about_this_run_and_reaches_the_same_host(connected, double, action, code, hint):
    status = 404 if code == "run.not_found" else 409
    double.scripts[f"POST /api/runs/{RUN_ID}/{action}"] = lambda asked: (status, problem(code, status, "No."))
    told = connected(action, "last", "--tenant", "fabrikam").err
    again = " --tenant fabrikam"
    assert f"Next: {hint.format(run=RUN_ID, again=again)}" in told


def test_a_run_named_with_the_marks_of_hints_is_only_a_name():
    assert run_named_in("/api/runs/a~RUN%3Bb/cancel") == "'a~RUN;b'"
    told = problem_of(409, json.dumps(problem("run.finished", 409, "No.")).encode(), Place("u", "'~RUN'", " --data ~"))
    assert told.hint.startswith("./livoa show '~RUN' --data ~ has its end")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("plan.cycle", "./livoa plan check FILE --user ben"),
        ("plan.capability_not_enabled", "./livoa tenant show --user ben"),
        ("plan.too_many_steps", "the run may have asked for less with --max-steps"),
        ("plan.wall_time", "the run may have asked for less with --deadline"),
    ],
)
def test_a_fault_of_a_plan_leads_to_where_it_can_be_seen(connected, double, code, hint):
    errors = [{"code": code, "pointer": "/plan/steps", "message": "no"}]
    double.scripts["POST /api/runs"] = lambda asked: (422, problem("plan.invalid", 422, "No.", errors=errors))
    told = connected("run", "x", "--user", "ben", "--json").json["error"]["hint"]
    assert hint in told
    assert ("plan check" in told) == (code == "plan.cycle")


@pytest.mark.parametrize(
    ("option", "code"), [(("--max-steps", "1"), "plan.too_many_steps"), (("--deadline", "0.5"), "plan.wall_time")]
)
def test_plan_check_keeps_to_what_the_run_would_be_asked_to(livoa, option, code):
    plan = MAIL
    assert livoa("plan", "check", plan).code == ExitCode.OK
    told = livoa("plan", "check", plan, *option, "--json")
    assert (told.code, [one["code"] for one in told.json["errors"]]) == (ExitCode.FAILED, [code])


@pytest.mark.parametrize("option", [("--goal", "g"), ("--value", "n=3"), ("--document", "d=x"), ("--max-steps", "0")])
def test_plan_check_refuses_what_it_has_no_use_for(livoa, option):
    told = livoa("plan", "check", MAIL, *option)
    assert told.code == ExitCode.USAGE
    assert option[0] in told.err
