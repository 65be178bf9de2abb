"""No built-in step, no way of writing a value and no class of parameter makes a label better than what went into it."""

from __future__ import annotations

from policy.questions import personal_of
from tests.unit.policy.flow.samples import (
    CALLER,
    MODEL,
    POISONED,
    argument,
    asked,
    bound,
    gate,
    last,
    ref,
    step,
)

GATE = {"id": "gate", "approval": {"question": "Shall we?"}}
CRM = step("crm", "crm.find", key="bob")


def test_an_instant_that_a_model_made_up_is_no_better_for_having_been_waited_for() -> None:
    pause = {"id": "pause", "wait": {"until": "2026-11-30T00:00:00Z"}}
    refund = step("refund", "pay.refund", account="DE-4711", amount=ref("steps.pause#/until"))
    facts = last(pause, refund, by=POISONED)
    assert argument(facts, "amount").label.integrity == 0
    assert gate(facts) == "deny"
    assert gate(last(pause, refund, by=CALLER)) == "allow"


def test_what_a_pause_says_is_as_confidential_as_what_it_waited_for() -> None:
    pause = {"id": "pause", "wait": {"until": ref("steps.crm#/since")}}
    tell = step("tell", "mail.send", to="bob@x.com", body=ref("steps.pause#/until"))
    assert argument(last(CRM, pause, tell), "body").label.pii


def test_the_name_of_whoever_answered_is_personal_and_the_answer_is_not() -> None:
    named = last(GATE, step("tell", "mail.send", to="bob@x.com", body=ref("steps.gate#/by")))
    whole = last(GATE, step("tell", "mail.send", to="bob@x.com", body=ref("steps.gate#")))
    said = last(GATE, step("tell", "mail.send", to="bob@x.com", body=ref("steps.gate#/approved")))
    assert [argument(facts, "body").label.pii for facts in (named, whole, said)] == [True, True, False]
    assert argument(said, "body").label.integrity == 2


def test_an_answer_may_decide_and_vouches_for_nothing_else() -> None:
    condition = {"left": ref("steps.gate#/approved"), "op": "eq", "right": True}
    tell = step("tell", "mail.send", to="bob@x.com", body="x", _when=condition)
    assert gate(last(GATE, tell)) == "allow"
    stranger = step("tell", "mail.send", to="eve@evil.org", body="x", _when=condition)
    assert gate(last(GATE, stranger, by=POISONED)) == "deny"
    asked_for = {"left": ref("run#/context/documents/0/text"), "op": "contains", "right": "now"}
    assert gate(last(GATE | {"when": asked_for}, tell, request=asked(documents=("x",)))) == "escalate"


def test_a_default_beside_an_answer_is_a_literal_of_its_author() -> None:
    tell = step("tell", "mail.send", to=ref("steps.gate#/approved", default="eve@evil.org"), body="x")
    assert gate(last(GATE, tell, by=POISONED)) == "deny"


def test_two_words_of_the_user_put_together_are_not_the_users_word() -> None:
    request = asked("Mail bob@x.co and tell m about it")
    joined = {"$template": "{a}{b}", "a": "bob@x.co", "b": "m"}
    assert gate(last(step("tell", "mail.send", to=joined), by=MODEL, request=request)) == "deny"
    assert gate(last(step("tell", "mail.send", to="bob@x.co"), by=MODEL, request=request)) == "allow"
    alone = {"$template": "{a}", "a": "bob@x.co"}
    assert gate(last(step("tell", "mail.send", to=alone), by=MODEL, request=request)) == "allow"
    assert gate(last(step("tell", "mail.send", to=joined), by=CALLER, request=request)) == "allow"


def test_what_steers_a_call_travels_as_far_as_what_it_carries() -> None:
    post = step("post", "http.post", url="https://api.contoso.com/x", mode=ref("steps.crm#/name"))
    facts = bound(CRM, post, inputs={"url": "https://api.contoso.com/x", "mode": "Ada"})
    assert (facts.payload.pii, facts.payload.confidentiality) == (True, 2)
    assert personal_of(facts) == ("/mode",)


def test_a_condition_on_records_is_not_content_that_leaves() -> None:
    condition = {"left": ref("steps.crm#/count"), "op": "gt", "right": 3}
    tell = step("tell", "mail.send", to="bob@x.com", body="x", _when=condition)
    assert not last(CRM, tell).payload.pii
