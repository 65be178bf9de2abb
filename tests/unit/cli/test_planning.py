"""`plan` and `route`: what is asked of the host, what is shown, and what the exit code says."""

import pytest

from cli.exit_codes import ExitCode
from cli.render.text import counted, money
from tests.unit.cli.api_double import problem
from triggers.api_examples import PLAN_PREVIEW, ROUTE

ESCALATED = PLAN_PREVIEW | {
    "decision": PLAN_PREVIEW["decision"]
    | {
        "verdict": "allow",
        "approvals": ["spend"],
        "steps": {
            "spend": {
                "verdict": "escalate",
                "findings": [
                    {"policy_id": "plat.mail", "message": "goes outside", "path": ["run#/intent", "steps.spend"]}
                ],
            }
        },
    }
}
DENIED = PLAN_PREVIEW | {"decision": PLAN_PREVIEW["decision"] | {"verdict": "deny", "reasons": ["not \x1b[31mthis"]}}
REFUSED = PLAN_PREVIEW | {
    "ok": False,
    "plan": None,
    "planner": None,
    "decision": None,
    "critical_path": [],
    "refusal": {"code": "plan.no_capability", "message": "nothing fits", "suggestions": ["Notes: “find notes”"]},
    "errors": [{"code": "plan.cycle", "pointer": "/steps/0", "message": "round"}],
}


def planned(double, preview):
    double.scripts["POST /api/plans"] = lambda asked: (200, preview)


def test_an_intent_is_planned_by_the_host(connected, double):
    planned(double, PLAN_PREVIEW)
    result = connected("plan", "why?", "--goal", "g", "--value", "n=3", "--json")
    assert (result.code, result.json) == (ExitCode.OK, PLAN_PREVIEW)
    assert double.heard[-1]["body"] == {"intent": "why?", "goals": ["g"], "context": {"values": {"n": 3}}}


@pytest.mark.parametrize(
    ("preview", "code", "said"),
    [
        (PLAN_PREVIEW, ExitCode.OK, ["planned by playbook explain_change", "critical path: spend (1 s", " USD", "policy: allow"]),
        (ESCALATED, ExitCode.OK, ["would ask for approval: spend", "plat.mail: goes outside (run#/intent → steps.spend)"]),
        (DENIED, ExitCode.FAILED, ["policy: deny", "not [31mthis"]),
        (REFUSED, ExitCode.FAILED, ["plan.no_capability: nothing fits", "you could ask: Notes: “find notes”", "plan.cycle"]),
    ],
)  # fmt: skip
def test_a_preview_says_what_it_would_take(connected, double, preview, code, said):
    planned(double, preview)
    result = connected("plan", "why?")
    assert result.code == code
    assert all(text in result.out for text in said), result.out


def test_edges_of_a_preview_that_are_inferred_are_counted_unless_asked_for(connected, double):
    notes = [{"code": "plan.edge_inferred", "pointer": f"/steps/{n}", "message": "by a reference"} for n in (1, 2)]
    notes.append({"code": "plan.cache_ignored", "pointer": "/steps/3", "message": "no cache"})
    planned(double, PLAN_PREVIEW | {"warnings": notes})
    short, whole = connected("plan", "why?").out, connected("plan", "why?", "--verbose").out
    assert "2 edges are inferred from references" in short
    assert ("plan.edge_inferred" in short, "plan.cache_ignored" in short) == (False, True)
    assert (whole.count("plan.edge_inferred"), "2 edges" in whole) == (2, False)
    assert connected("plan", "why?", "--json").json["warnings"] == notes


def test_a_route_is_shown(connected, double):
    double.scripts["POST /api/route"] = lambda asked: (200, ROUTE)
    assert connected("route", "why?", "--json").json == ROUTE
    result = connected("route", "why?")
    assert result.code == ExitCode.OK
    assert all(
        text in result.out
        for text in ("in scope", "0.90  marketing.compare_periods", "handed on by small: model.timeout")
    )
    double.scripts["POST /api/route"] = lambda asked: (200, ROUTE | {"in_scope": False})
    refused = connected("route", "joke")
    assert refused.code == ExitCode.FAILED
    assert "out of scope" in refused.out
    assert "./livoa plan" in refused.err


def test_a_refusal_of_the_host_is_told(connected, double):
    double.scripts["POST /api/plans"] = lambda asked: (403, problem("auth.role_missing", 403, "no"))
    assert connected("plan", "why?").code == ExitCode.FORBIDDEN


@pytest.mark.parametrize("words", [("plan", "check"), ("plan", "why", "not")])
def test_what_cannot_be_meant_is_wrong_usage(livoa, words):
    assert livoa(*words).code == ExitCode.USAGE


def test_amounts_and_numbers_are_written_as_people_read_them():
    assert [money(amount) for amount in (0, 400, 1_500, 2_000_000)] == ["0 USD", "0.0004 USD", "0.0015 USD", "2 USD"]
    assert [counted(1, "call"), counted(2, "call"), counted(2, "denied")] == ["1 call", "2 calls", "2 denied"]
    assert [counted(1, "approval granted"), counted(3, "approval granted")] == [
        "1 approval granted",
        "3 approvals granted",
    ]
