"""`./livoa policy` over the shipped catalog: what the documentation shows is what people see."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.main import main

ROOT = Path(__file__).resolve().parents[3]
PLANS = ROOT / "catalog" / "samples" / "plans"


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["policy", *words, "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    return int(code), json.loads(line)


def test_every_golden_request_is_answered_as_expected(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ask(capsys, "test")
    assert [one for one in said["requests"] if not one["ok"]] == []
    assert {one["tenant"] for one in said["requests"]} == {"contoso", "fabrikam", "default"}
    assert code == 0


def test_a_policy_that_went_missing_fails_the_golden_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "catalog", tmp_path / "catalog")
    taint = tmp_path / "catalog" / "policies" / "platform" / "taint.cedar"
    taint.write_text(taint.read_text().replace("integrity < 2", "integrity < 0"))
    code, said = ask(capsys, "test", "--tenant", "contoso", "--catalog", str(tmp_path / "catalog"))
    assert code == 1
    assert {one["name"] for one in said["requests"] if not one["ok"]} == {
        "a recipient out of a document is refused, approved or not",
        "whether it is sent is decided by a document",
    }


def test_the_slow_sample_plan_leaves_time_to_hold_and_to_stop_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert int(main(["plan", "check", str(PLANS / "slow.json"), "--json"])) == 0
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert said["critical_path"] == ["first", "pause", "second"]
    assert said["critical_path_s"] >= 60
    assert said["decision"]["verdict"] == "allow"


@pytest.mark.parametrize(
    ("plan", "verdict", "step", "policy"),
    [
        ("mail_to_whom_a_brief_names", "deny", "deny", "plat.taint-selector"),
        ("mail_to_a_stranger", "allow", "escalate", "t/contoso/mail-outside"),
        ("raise_a_budget", "allow", "escalate", "t/contoso/ad-budget-approval"),
        ("mail_about_buyers", "allow", "transform", "plat.pii-egress"),
        ("mail_report", "allow", "allow", "t/contoso/side-effects"),
    ],
)
def test_the_sample_plans_get_the_verdicts_they_are_there_for(
    capsys: pytest.CaptureFixture[str], plan: str, verdict: str, step: str, policy: str
) -> None:
    code = main(["plan", "check", str(PLANS / f"{plan}.json"), "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    decision = json.loads(line)["decision"]
    assert decision["verdict"] == verdict
    last = list(decision["steps"].values())[-1]
    assert (last["verdict"], last["policy_ids"]) == (step, [policy])
    assert code == (1 if verdict == "deny" else 0)


def test_lint_tells_faults_or_what_a_draft_would_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = tmp_path / "draft.cedar"
    draft.write_text("permit (principal, action, resource);")
    code, said = ask(capsys, "lint", str(draft), "--tenant", "fabrikam")
    assert (code, {one["code"] for one in said["errors"]}) == (1, {"policy.id_missing", "policy.permit_too_wide"})
    draft.write_text('@id("t/fabrikam/quiet") forbid (principal, action == Livoa::Action::"rag.search", resource);')
    code, said = ask(capsys, "lint", str(draft), "--tenant", "fabrikam")
    assert (code, [one["after"] for one in said["changes"]]) == (0, ["deny (t/fabrikam/quiet)"])


def test_the_schema_is_there_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ask(capsys, "schema")
    assert code == 0
    assert "mail.send" in said["schema"]["Livoa"]["actions"]


@pytest.mark.parametrize(
    "words", [["lint"], ["lint", "no/such.cedar"], ["plan", "x"], ["test", "x"], ["test", "--tenant", "nobody"]]
)
def test_wrong_usage_is_told(words: list[str]) -> None:
    assert int(main(["policy", *words])) == 2


def test_the_policies_of_any_tenant_belong_to_no_tenant(capsys: pytest.CaptureFixture[str]) -> None:
    assert int(main(["plan", "check", str(PLANS / "mail_report.json"), "--tenant", "default"])) == 2
    assert "contoso, fabrikam" in capsys.readouterr().err
