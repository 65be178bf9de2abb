"""A second person's answer over the whole product, with the policies of the sample tenant: asked, given, refused, worthless."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.domain.principal import Role
from tests.e2e.client import Client
from tests.e2e.plans import request_of
from tests.e2e.stack import Stack, up
from tests.support.forger import forge_request

APPROVER = (Role.RUNS_APPROVE, Role.RUNS_READ)
AMOUNT = {"$ref": "run#/context/values/amount"}


def budget(step_id: str = "budget", amount: Any = AMOUNT, **more: Any) -> dict[str, Any]:
    """A change that policy wants approved above 20,000 a week."""
    inputs = {"channel": "paid_search", "weekly_amount": amount}
    return {"id": step_id, "capability": "ads.set_budget", "inputs": inputs} | more


def asked(*steps: dict[str, Any], **values: Any) -> dict[str, Any]:
    return request_of(*steps, context={"values": values})


def until(client: Client, run_id: str, kind: str, times: int = 1) -> list[dict[str, Any]]:
    """Events up to the one that makes it ``times`` of a kind."""
    seen = []
    for event in client.follow(run_id):
        seen.append(event)
        if sum(entry["type"] == kind for entry in seen) == times:
            return seen
    raise AssertionError(f"the log ended without {times} {kind}: {[event['type'] for event in seen]}")


def approvals(client: Client, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/api/runs/{run_id}/approvals").json["approvals"]
    return found


def answer(client: Client, run_id: str, subject: str, decision: str = "approve", **more: Any) -> Any:
    return client.post(f"/api/runs/{run_id}/approvals/{subject}", {"decision": decision, **more})


@pytest.fixture
def ben(stack: Stack) -> Client:
    return stack.client(user="ben", roles=APPROVER)


def test_a_costly_change_waits_for_a_second_person_and_for_nobody_else(
    stack: Stack, contoso: Client, ben: Client
) -> None:
    run_id = contoso.submit(asked(budget(), amount=30_000))
    until(contoso, run_id, "approval.requested")
    assert contoso.run(run_id)["status"] == "awaiting_approval"
    (shown,) = approvals(ben, run_id)
    assert shown["arguments"]["inputs"] == {"channel": "paid_search", "weekly_amount": 30_000}
    assert shown["findings"][0]["policy_id"] == "t/contoso/ad-budget-approval"
    assert shown["findings"][0]["path"][0] == "run#/context/values/amount"
    assert f"{run_id}/budget" not in stack.executions()

    ana = stack.client(roles=(*APPROVER, Role.RUNS_SUBMIT))
    assert answer(ana, run_id, "budget").code == "approval.self"
    assert answer(contoso, run_id, "budget").code == "auth.role_missing"
    assert answer(stack.client("fabrikam", "bo", APPROVER), run_id, "budget").code == "run.not_found"

    first = answer(ben, run_id, "budget", approval_id=shown["approval_id"])
    assert (first.status, first.json["status"]) == (200, "granted")
    assert answer(ben, run_id, "budget").status == 200
    run = contoso.finished(run_id, patience_s=30)
    assert run["status"] == "succeeded"
    assert list(stack.executions()).count(f"{run_id}/budget") == 1
    assert answer(ben, run_id, "budget", "reject").code == "approval.closed"


def test_a_refused_change_does_not_happen(stack: Stack, contoso: Client, ben: Client) -> None:
    run_id = contoso.submit(asked(budget(), amount=40_000))
    until(contoso, run_id, "approval.requested")
    assert answer(ben, run_id, "budget", "reject", comment="too much").json["status"] == "refused"
    assert contoso.finished(run_id, patience_s=30)["status"] == "denied"
    assert contoso.steps(run_id)["budget"]["error"]["code"] == "approval.refused"
    assert f"{run_id}/budget" not in stack.executions()


def test_a_small_change_needs_nobody_and_a_huge_one_helps_nobody(stack: Stack, contoso: Client) -> None:
    small = contoso.submit(asked(budget(), amount=15_000))
    assert contoso.finished(small, patience_s=30)["status"] == "succeeded"
    huge = contoso.submit(asked(budget(), amount=300_000))
    assert contoso.finished(huge, patience_s=30)["status"] == "denied"
    for run_id in (small, huge):
        assert approvals(contoso, run_id) == []
    assert f"{huge}/budget" not in stack.executions()


def test_items_of_a_map_are_answered_one_by_one_and_heard_at_once(stack: Stack, contoso: Client, ben: Client) -> None:
    each = budget("each", {"$ref": "item#"}, for_each={"$ref": "run#/context/values/amounts"}, max_items=5)
    run_id = contoso.submit(asked(each, amounts=[10_000, 30_000, 40_000]))
    until(contoso, run_id, "approval.requested", 2)
    assert {entry["item"] for entry in approvals(ben, run_id)} == {1, 2}
    assert answer(ben, run_id, "each").code == "approval.item_missing"
    for item in (1, 2):
        assert answer(ben, run_id, "each", item=item).status == 200
    # The instance that waits is the part of the map; were it not told, its watchdog would ring after five minutes.
    assert contoso.finished(run_id, patience_s=30)["status"] == "succeeded"
    assert {f"{run_id}/each/{item}" for item in range(3)} <= set(stack.executions())


def test_a_question_to_a_person_holds_only_what_needs_its_answer(contoso: Client, ben: Client) -> None:
    question = {"id": "ok", "approval": {"question": "Shall we?"}}
    run_id = contoso.submit(asked(question, budget(needs=["ok"]), budget("other", 5_000), amount=1_000))
    until(contoso, run_id, "step.succeeded")
    assert contoso.steps(run_id)["budget"]["status"] == "pending"
    assert approvals(ben, run_id)[0]["arguments"] == {"question": "Shall we?"}
    answer(ben, run_id, "ok")
    assert contoso.finished(run_id, patience_s=30)["status"] == "succeeded"
    assert contoso.output(run_id, "ok")["approved"] is True


def test_a_cancel_ends_the_waiting_and_voids_the_question(contoso: Client, ben: Client) -> None:
    run_id = contoso.submit(asked(budget(), amount=30_000))
    until(contoso, run_id, "approval.requested")
    assert contoso.post(f"/api/runs/{run_id}/cancel").status == 202
    assert contoso.finished(run_id, patience_s=30)["status"] == "cancelled"
    assert [entry["status"] for entry in approvals(ben, run_id)] == ["void"]
    assert answer(ben, run_id, "budget").code == "approval.closed"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, because its files are changed behind its back and its host is killed."""
    with up(tmp_path_factory.mktemp("own")) as running:
        yield running


def test_whoever_changes_the_arguments_behind_the_approval_voids_it(own: Stack) -> None:
    contoso, ben = own.client(), own.client(user="ben", roles=APPROVER)
    run_id = contoso.submit(asked(budget(), amount=30_000))
    until(contoso, run_id, "approval.requested")
    forge_request(own.data, run_id, amount=200_000)
    assert answer(ben, run_id, "budget").json["status"] == "granted"
    until(contoso, run_id, "approval.requested", 2)
    first, second = approvals(ben, run_id)
    assert (first["status"], second["status"]) == ("void", "pending")
    assert second["arguments"]["inputs"]["weekly_amount"] == 200_000
    assert f"{run_id}/budget" not in own.executions()
    answer(ben, run_id, "budget", "reject")
    assert contoso.finished(run_id, patience_s=30)["status"] == "denied"


def test_waiting_and_answer_survive_a_crash_of_the_host(own: Stack) -> None:
    contoso, ben = own.client(), own.client(user="ben", roles=APPROVER)
    run_id = contoso.submit(asked(budget(), amount=25_000))
    until(contoso, run_id, "approval.requested")
    own.kill_host()
    patience = time.monotonic() + 40
    while True:
        try:
            assert answer(ben, run_id, "budget").json["status"] == "granted"
            break
        except OSError:
            assert time.monotonic() < patience
            time.sleep(0.2)
    assert contoso.finished(run_id, patience_s=40)["status"] == "succeeded"
    assert list(own.executions()).count(f"{run_id}/budget") == 1
