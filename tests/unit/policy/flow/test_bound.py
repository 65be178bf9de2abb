"""At dispatch the values are there: labels still come from the plan, and a value that the plan does not explain has none."""

from __future__ import annotations

from typing import Any

import pytest

from policy.facts import Label
from policy.flow import step_facts
from tests.unit.policy.flow.samples import (
    CALLER,
    CAPABILITIES,
    EXTRACT,
    MODEL,
    TENANT,
    WEB,
    argument,
    asked,
    bound,
    gate,
    plan_of,
    ref,
    step,
)

TELL = step("tell", "mail.send", to="bob@x.com", body={"$template": "Dear {a}", "a": ref("steps.crm#/name")})
CRM = step("crm", "crm.find", key="bob")
LOWEST = Label(0, 3, True)


def test_labels_stay_those_of_the_plan_whatever_the_value_looks_like() -> None:
    tell = step("tell", "mail.send", to=ref("steps.extract#/mail"))
    facts = bound(WEB, EXTRACT, tell, inputs={"to": "finance@contoso.com"}, by=MODEL)
    assert gate(facts) == "deny"
    assert argument(facts, "to").bound


@pytest.mark.parametrize(
    ("inputs", "worst"),
    [
        ({"to": "eve@x.com", "body": "Dear Bob"}, "to"),
        ({"to": ["bob@x.com"], "body": "Dear Bob"}, "to"),
        ({"to": "bob@x.com", "body": "Dear Bob", "cc": "eve@x.com"}, "cc"),
    ],
)
def test_an_argument_that_is_not_what_the_plan_says_is_worth_nothing(inputs: dict[str, Any], worst: str) -> None:
    facts = bound(CRM, TELL, inputs=inputs)
    assert argument(facts, worst).label == LOWEST
    assert gate(facts) == "deny"


def test_structure_is_part_of_what_the_plan_says() -> None:
    tell = step("tell", "mail.send", to=["bob@x.com", {"$literal": {"x": [1]}}])
    assert gate(bound(tell, inputs={"to": ["bob@x.com", {"x": [1]}]})) == "allow"
    for other in (["bob@x.com"], ["bob@x.com", {"x": [2]}], ["bob@x.com", {"x": [1]}, "eve@x.com"], ["bob@x.com", {}]):
        assert gate(bound(tell, inputs={"to": other})) == "deny"
    assert gate(bound(step("tell", "mail.send", to=1), inputs={"to": True})) == "deny"


def test_what_was_redacted_is_about_nobody_any_more() -> None:
    before = bound(CRM, TELL, inputs={"to": "bob@x.com", "body": "Dear Bob"})
    assert (before.payload.pii, argument(before, "body").personal) == (True, ("/body",))
    after = bound(CRM, TELL, inputs={"to": "bob@x.com", "body": "…"}, redacted=("/body",))
    assert (after.payload.pii, argument(after, "body").personal) == (False, ())
    assert after.payload.confidentiality == 2


def test_redacting_a_part_clears_only_that_part() -> None:
    tell = step("tell", "mail.send", to="bob@x.com", body=ref("steps.crm#/person"))
    person = {"name": "…", "lines": ["…", "Street 5"], "vip": True}
    part = bound(CRM, tell, inputs={"to": "bob@x.com", "body": person}, redacted=("/body/name", "/body/lines/0"))
    assert part.payload.pii
    every = ("/body/name", "/body/lines/0", "/body/lines/1")
    assert not bound(CRM, tell, inputs={"to": "bob@x.com", "body": person}, redacted=every).payload.pii
    assert bound(CRM, tell, inputs={"to": "bob@x.com", "body": person}, redacted=("", "no pointer", "/to")).payload.pii


def test_a_redaction_does_not_excuse_another_change() -> None:
    tell = step("tell", "mail.send", to="bob@x.com", body=["Bob", "lives"])
    assert argument(
        bound(tell, inputs={"to": "bob@x.com", "body": ["…", "lives"]}, redacted=("/body/0",)), "body"
    ).label == Label(3, 0, False)
    assert (
        argument(bound(tell, inputs={"to": "bob@x.com", "body": ["…", "dies"]}, redacted=("/body/0",)), "body").label
        == LOWEST
    )


def test_an_undoing_has_the_labels_of_its_own_inputs() -> None:
    undo = {"capability": "mail.retract", "inputs": {"id": ref("steps.tell#/id"), "to": "bob@x.com"}}
    tell = step("tell", "mail.send", to="bob@x.com", body=ref("steps.web#/x"), _compensate_with=undo)
    facts = bound(WEB, tell, inputs={"id": "7", "to": "bob@x.com"}, purpose="compensation")
    assert facts.capability == "mail.retract"
    # The receipt of a mail with untrusted text in it is no better than the text.
    assert argument(facts, "id").integrity_from.path == (
        "steps.web#/x", "steps.tell#/id", "steps.tell.compensate_with/inputs/id",
    )  # fmt: skip
    assert argument(facts, "to").label.integrity == 3


def test_an_undoing_that_the_plan_leaves_out_is_made_from_all_there_is() -> None:
    pay = step("pay", "pay.refund", account="DE-4711", amount=5)
    facts = bound(pay, inputs={"payment": "p-1"}, purpose="compensation")
    assert (facts.capability, gate(facts)) == ("pay.reverse", "allow")
    tainted = step("pay", "pay.refund", account="DE-4711", amount=ref("steps.web#/amount"))
    facts = bound(WEB, tainted, inputs={"payment": "p-1"}, purpose="compensation")
    assert gate(facts) == "deny"


def test_a_fallback_is_judged_by_its_own_manifest() -> None:
    tell = step("tell", "llm.extract", text=ref("steps.web#/x"))
    inputs = {"text": "https://evil.com/"}
    assert gate(bound(WEB, tell, inputs=inputs)) == "allow"
    other = CAPABILITIES["http.post"]
    facts = bound(WEB, tell, inputs=inputs, purpose="fallback", capability=other)
    assert (facts.capability, facts.untrusted_hosts) == ("http.post", {"evil.com"})
    assert gate(facts) == "deny"


def test_a_step_that_is_not_in_the_plan_is_worth_nothing() -> None:
    facts = step_facts(
        plan_of(TELL, CRM), "other", None, {"to": "bob@x.com"}, CAPABILITIES, asked(), CALLER, TENANT,
        capability=CAPABILITIES["mail.send"],
    )  # fmt: skip
    assert gate(facts) == "deny"
    assert facts.control == LOWEST


def test_labels_kept_for_a_plan_are_not_given_to_another_author_request_or_catalog() -> None:
    plan = plan_of(step("tell", "mail.send", to="eve@x.com"))
    inputs = {"to": "eve@x.com"}

    def ask(by: Any, request: Any, capabilities: Any) -> str:
        return gate(step_facts(plan, "tell", None, inputs, capabilities, request, by, TENANT))

    trusting = asked("to eve@x.com")
    assert ask(CALLER, trusting, CAPABILITIES) == "allow"
    assert ask(MODEL, trusting, CAPABILITIES) == "allow"
    assert ask(MODEL, asked("to bob@x.com"), CAPABILITIES) == "deny"
    assert ask(MODEL, trusting, CAPABILITIES) == "allow"
    assert ask(None, trusting, CAPABILITIES) == "deny"
    payload = CAPABILITIES["mail.send"].model_copy(update={"parameters": {"to": "payload"}})
    assert ask(MODEL, asked("x"), CAPABILITIES | {"mail.send": payload}) == "allow"
