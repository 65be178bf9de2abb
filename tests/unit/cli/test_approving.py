"""What waits for a person, on a terminal: seen, answered by somebody else, and never a command that would be refused."""

from __future__ import annotations

import base64
import json

import pytest

from cli.approving import command_for, lines_of, without_user
from cli.exit_codes import ExitCode
from cli.run_state import RunState
from cli.watch import line_of
from tests.unit.cli.api_double import EVENTS, PLAN, RUN_ID, asking, event, problem

ASKED = event(7, "approval.requested", subject="tell", approval_id="ap-1", expires_at="2026-11-22T13:00:00Z")


def test_the_list_says_what_who_why_with_what_and_how_to_answer(connected, double):
    double.approvals = [asking()]
    result = connected("approvals", RUN_ID)
    for told in ("tell  mail.send  pending until", "requested by tid:ana", "because mail outside", "t/contoso/mail: by way of",
                 "steps.spend#/rows/0 → steps.tell", '{"to": "x@y.example"}'):  # fmt: skip
        assert told in result.out
    assert "\x1b" not in result.out
    assert f"./livoa approve {RUN_ID} tell" in result.err
    assert connected("approvals", RUN_ID, "--json").json["approvals"] == [asking()]


def test_a_void_one_says_why():
    why = {"code": "approval.arguments_changed", "message": "the arguments are not those that were shown"}
    said = lines_of(asking(status="void") | {"void": why, "decided_by": "tid:ben"})
    assert said[1] == "  void: approval.arguments_changed: the arguments are not those that were shown"
    line = line_of(event(9, "approval.voided", subject="tell", approver="tid:ben", **why))
    assert line.endswith("voided  the arguments are not those that were shown")


def test_a_way_that_the_reason_tells_is_told_once():
    finding = {"policy_id": "p", "path": ["a", "b"]}
    asked = asking() | {"findings": [finding], "reasons": ["too much, by way of a → b (p)"]}
    assert [line for line in lines_of(asked) if "a → b" in line] == ["  because too much, by way of a → b (p)"]


def test_without_a_run_the_tenants_open_questions_are_listed(connected, double):
    double.approvals = [asking()]
    assert RUN_ID in connected("approvals").out
    assert double.heard[-1]["path"] == "/api/approvals"
    double.approvals = []
    assert "nothing waits" in connected("approvals").err


@pytest.mark.parametrize(("verb", "status"), [("approve", "granted"), ("reject", "refused")])
def test_an_answer_is_sent_with_what_was_said(connected, double, verb, status):
    result = connected(verb, RUN_ID, "tell", "--item", "2", "--reason", "checked", "--approval", "ap-1", "--json")
    assert result.json["status"] == status
    asked = double.heard[-1]
    assert asked["path"] == f"/api/runs/{RUN_ID}/approvals/tell"
    assert asked["body"] == {"decision": verb, "item": 2, "comment": "checked", "approval_id": "ap-1"}


def token_of(asked):
    payload = asked["headers"]["authorization"].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_somebody_else_answers_by_default_and_may_be_named(livoa, double, monkeypatch):
    monkeypatch.setenv("LIVOA_URL", double.url)
    livoa("run", "why?", "--json")
    requester = token_of(double.heard[-1])
    livoa("approve", RUN_ID, "tell")
    first = token_of(double.heard[-1])
    livoa("approve", RUN_ID, "tell", "--as", "cy")
    second = token_of(double.heard[-1])
    assert len({requester["oid"], first["oid"], second["oid"]}) == 3
    assert "Runs.Approve" in first["roles"]
    assert "Runs.Submit" not in first["roles"]


def test_a_refusal_says_what_would_help(connected, double):
    path = f"POST /api/runs/{RUN_ID}/approvals/tell"
    double.scripts[path] = lambda asked: (403, problem("approval.self", 403, "Somebody else must answer."))
    result = connected("approve", RUN_ID, "tell")
    assert result.code == ExitCode.FORBIDDEN
    assert "--as NAME" in result.err
    double.scripts[path] = lambda asked: (409, problem("approval.closed", 409, "It is closed."))
    closed = connected("reject", RUN_ID, "tell")
    assert closed.code == ExitCode.FAILED
    assert f"./livoa approvals {RUN_ID}" in closed.err
    double.scripts[path] = lambda asked: (403, problem("auth.tenant_suspended", 403, "This tenant is suspended."))
    assert "docs/tenants.md" in connected("approve", RUN_ID, "tell").err


def test_show_says_what_waits_for_whom(connected, double):
    double.approvals = [asking(), asking(subject="done", status="granted")]
    double.scripts[f"GET /api/runs/{RUN_ID}"] = lambda asked: (
        200,
        {**double.run(), "answer": None, "finished_at": None},
    )
    told = connected("show", RUN_ID).err
    assert "tell  mail.send  pending" in told
    assert f"./livoa approve {RUN_ID} tell" in told
    assert "done" not in told


def test_a_run_that_waits_says_how_it_can_be_approved(connected, double):
    granted = event(8, "approval.granted", subject="tell", approval_id="ap-1", approver="tid:ben")
    double.events = [*EVENTS[:6], ASKED, granted, *({**e, "seq": e["seq"] + 2} for e in EVENTS[6:])]
    told = connected("run", "why?", "--user", "ana").err
    assert "? tell               waits for a person  until 2026-11-22T13:00:00Z" in told
    command = next(line for line in told.splitlines() if "approve" in line)
    assert command.strip() == f"Next: ./livoa approve {RUN_ID} tell"
    assert "granted  by tid:ben" in told


def test_a_suggested_answer_is_not_the_requesters():
    again = " --url http://127.0.0.1:1 --user 'an a' --data '/tmp/x y'"
    assert without_user(again) == " --url http://127.0.0.1:1 --data '/tmp/x y'"
    assert command_for(asking(item=3), again).startswith(f"./livoa approve {RUN_ID} tell --item 3 --url")


def test_a_run_waits_for_people_when_somebody_is_asked_and_nothing_is_under_way():
    state = RunState(RUN_ID)
    for entry in EVENTS[:4]:
        state.apply(entry)
    state.learn_plan(PLAN)
    for kind, data, status in (
        ("step.started", {"step_id": "spend"}, "running"),
        ("approval.requested", {"subject": "fit", "approval_id": "ap-1"}, "running"),
        ("step.succeeded", {"step_id": "spend"}, "awaiting_approval"),
        ("approval.granted", {"subject": "fit", "approval_id": "ap-1"}, "running"),
    ):
        state.apply(event(9, kind, **data))
        assert state.status == status, kind
    assert state.steps["fit"].note == "granted"


def test_a_plan_that_waits_is_not_in_force():
    state = RunState(RUN_ID)
    state.apply(event(1, "run.accepted"))
    state.apply(event(2, "plan.proposed", plan_hash="a"))
    state.apply(event(3, "approval.requested", subject="plan", approval_id="ap-1"))
    assert state.status == "awaiting_approval"
    state.apply(event(4, "approval.granted", subject="plan", approval_id="ap-1"))
    assert state.status == "planning"
    state.apply(event(5, "plan.vetted", plan_hash="a"))
    assert state.status == "running"
