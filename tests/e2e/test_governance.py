"""Policy over the whole product, with the policies and plans that are shipped: taken out, escalated, refused, on record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.plans import request_of, search
from tests.e2e.stack import ROOT, Stack, rows, up
from tests.e2e.test_approvals import APPROVER, answer, approvals, until

SAMPLES = ROOT / "catalog" / "samples" / "plans"
TWO_STEPS_AT_MOST = """
@id("t/contoso/large-plan")
@severity("curable")
@cure("approval:four-eyes")
@message("a plan of more than two steps needs a second person")
forbid (principal, action == Livoa::Action::"plan.submit", resource)
when { context.budget.steps > 2 }
unless { context.cures.approved && context.cures.approverDiffers };
"""


def sample(name: str) -> dict[str, Any]:
    plan = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return {"intent": "Carry out this plan", "plan": plan}


def records(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    found = rows(stack.data / "livoa.db", "SELECT document FROM audit_records WHERE run_id = ? ORDER BY seq", run_id)
    return [json.loads(document) for (document,) in found]


def everything(stack: Stack, run_id: str) -> str:
    """What log, history and audit record of a run say, as text."""
    events = rows(stack.data / "livoa.db", "SELECT data FROM events WHERE run_id = ?", run_id)
    return json.dumps([records(stack, run_id), events])


def test_personal_data_is_taken_out_before_a_mail_leaves(stack: Stack, contoso: Client) -> None:
    run_id = contoso.submit(sample("mail_about_buyers"))
    assert contoso.finished(run_id, patience_s=40)["status"] == "succeeded"
    buyer = contoso.output(run_id, "buyers")["buyers"][0]["name"]
    query = "SELECT text FROM mails WHERE key = ?"
    ((text,),) = rows(stack.data / "agents" / "outbox.db", query, f"{run_id}/tell")
    assert "Best buyer: [redacted]" in text
    assert "Segment: top" in text
    assert buyer not in text
    said = records(stack, run_id)
    (verdict,) = [one for one in said if one["body"].get("verdict") == "transform"]
    assert "plat.pii-egress" in verdict["body"]["policies"]
    (intent,) = [one for one in said if one["type"] == "dispatch.intended" and "tell" in one["entry_id"]]
    assert intent["body"]["decision"]["redacted"] == ["/lines/0/value"]
    assert buyer not in everything(stack, run_id)


def test_a_plan_with_a_target_from_a_document_is_refused_with_its_way(contoso: Client) -> None:
    request = sample("mail_to_whom_a_brief_names")
    run_id = contoso.submit(request)
    run = contoso.finished(run_id, patience_s=40)
    assert run["status"] == "denied"
    message = run["error"]["message"]
    assert "plat.taint-selector" in message
    assert "by way of" in message


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose tenant wants larger plans approved."""
    folder = tmp_path_factory.mktemp("strict")
    shutil.copytree(ROOT / "catalog", folder / "catalog")
    own: Path = folder / "catalog" / "policies" / "tenants" / "contoso" / "plans.cedar"
    own.write_text(TWO_STEPS_AT_MOST, encoding="utf-8")
    with up(folder / "data", settings={"LIVOA_CATALOG": str(folder / "catalog")}) as running:
        yield running


def test_a_plan_that_policy_wants_approved_starts_after_a_second_persons_yes(strict: Stack) -> None:
    ana, ben = strict.client(), strict.client(user="ben", roles=APPROVER)
    run_id = ana.submit(request_of(search("a"), search("b"), search("c")))
    until(ana, run_id, "approval.requested")
    (shown,) = approvals(ben, run_id)
    assert (shown["subject"], shown["kind"], shown["status"]) == ("plan", "plan", "pending")
    assert shown["findings"][0]["policy_id"] == "t/contoso/large-plan"
    assert not [key for key in strict.executions() if key.startswith(run_id)]
    both = strict.client(roles=APPROVER)
    assert answer(both, run_id, "plan").code == "approval.self"
    assert answer(strict.client("fabrikam", "bo", APPROVER), run_id, "plan").code == "run.not_found"
    assert answer(ben, run_id, "plan").json["status"] == "granted"
    assert ana.finished(run_id, patience_s=40)["status"] == "succeeded"
    kinds = [one["type"] for one in records(strict, run_id)]
    assert [kind for kind in kinds if kind.startswith(("plan.", "approval."))] == [
        "plan.proposed", "approval.requested", "approval.granted", "plan.validated",
    ]  # fmt: skip


def test_a_plan_that_is_not_approved_does_nothing(strict: Stack) -> None:
    ana, ben = strict.client(), strict.client(user="ben", roles=APPROVER)
    run_id = ana.submit(request_of(search("a"), search("b"), search("c")))
    until(ana, run_id, "approval.requested")
    assert answer(ben, run_id, "plan", "reject", comment="S3CRET-COMMENT").json["status"] == "refused"
    assert ana.finished(run_id, patience_s=40)["status"] == "denied"
    assert not [key for key in strict.executions() if key.startswith(run_id)]
    assert "S3CRET-COMMENT" not in everything(strict, run_id)
