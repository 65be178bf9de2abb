"""Whatever untrusted text says, it can choose no target, no amount and no effect: one test per way it could try."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain.run import PlanProvenance
from tests.unit.policy.flow.samples import EXTRACT, MODEL, PLAYBOOK, POISONED, WEB, asked, gate, last, ref, step

BODY = ref("steps.extract#/summary")
CRM = step("crm", "crm.find", key=ref("steps.extract#/id"))
UNTRUSTED = {"left": ref("steps.web#/hits/0/urgent"), "op": "eq", "right": True}


@pytest.mark.parametrize(
    ("verdict", "steps"),
    [
        ("allow", [WEB, EXTRACT, step("tell", "mail.send", to="bob@x.com", body=BODY)]),
        ("deny", [WEB, step("tell", "mail.send", to=ref("steps.web#/hits/0/mail"), body="x")]),
        ("deny", [WEB, EXTRACT, step("tell", "mail.send", to=ref("steps.extract#/mail"), body="x")]),
        ("deny", [WEB, EXTRACT, CRM, step("tell", "mail.send", to=ref("steps.crm#/mail"), body="x")]),
        ("deny", [step("tell", "mail.send", to=ref("run#/context/documents/0/text"), body="x")]),
        ("deny", [WEB, step("tell", "mail.send", to=["bob@x.com", ref("steps.web#/hits/0/mail")], body="x")]),
        ("deny", [WEB, step("tell", "mail.send", to={"$template": "{a}@x.com", "a": ref("steps.web#/a")}, body="x")]),
        ("deny", [WEB, step("pay", "pay.refund", account="DE-4711", amount=ref("steps.web#/amount"))]),
        ("deny", [WEB, step("put", "http.post", url=ref("steps.web#/url"), content="x")]),
        ("deny", [WEB, step("tell", "mail.send", to="bob@x.com", cc=ref("steps.web#/hits/0/mail"))]),
        ("escalate", [WEB, step("tell", "mail.send", to="bob@x.com", body="x", _when=UNTRUSTED)]),
        ("escalate", [WEB, step("put", "http.post", url="https://api.contoso.com/", mode=ref("steps.web#/mode"))]),
        ("deny", [WEB, step("tell", "mail.send", to="bob@x.com", body="x", _for_each=ref("steps.web#/hits"))]),
        ("allow", [step("crm", "crm.find", key="bob"), step("tell", "mail.send", to=ref("steps.crm#/mail"))]),
        ("allow", [step("tell", "mail.send", to=ref("run#/context/values/contact"), body="x")]),
    ],
)
def test_a_plan_of_the_user_is_judged_by_what_its_side_effect_depends_on(verdict: str, steps: list[Any]) -> None:
    assert gate(last(*steps, request=asked(documents=("evil",), contact="a@b"))) == verdict


@pytest.mark.parametrize(
    ("verdict", "by", "to"),
    [
        ("allow", MODEL, "bob@x.com"),
        ("allow", MODEL, "finance@contoso.com"),
        ("deny", MODEL, "eve@x.com"),
        ("deny", POISONED, "eve@x.com"),
        ("escalate", POISONED, "bob@x.com"),
        ("allow", PLAYBOOK, "anybody@contoso.com"),
        ("deny", None, "bob@x.com"),
    ],
)
def test_a_literal_is_worth_as_much_as_who_wrote_it(verdict: str, by: PlanProvenance | None, to: str) -> None:
    assert gate(last(step("tell", "mail.send", to=to, body="hello"), by=by)) == verdict


def test_a_target_found_in_records_by_the_models_own_guess_is_denied() -> None:
    find = step("crm", "crm.find", key="eve")
    tell = step("tell", "mail.send", to=ref("steps.crm#/mail"), body="x")
    assert gate(last(find, tell, by=MODEL)) == "deny"
    assert gate(last(find, tell, by=MODEL, request=asked("Write to eve, please."))) == "allow"


def test_a_record_found_by_the_users_own_key_needs_a_person_when_the_planner_read_untrusted_text() -> None:
    find = step("crm", "crm.find", key="eve")
    tell = step("tell", "mail.send", to=ref("steps.crm#/mail"), body="x")
    assert gate(last(find, tell, by=POISONED, request=asked("Write to eve, please."))) == "escalate"
    assert gate(last(find, tell, by=POISONED, request=asked("Write to bob, please."))) == "deny"


def test_a_choice_among_the_manifests_own_words_is_no_value_from_elsewhere() -> None:
    pay = step("pay", "pay.refund", account="DE-4711", amount=1_200_000, speed="fast")
    assert gate(last(pay, by=MODEL)) == "allow"
    assert gate(last({**pay, "inputs": {**pay["inputs"], "speed": "faster"}}, by=MODEL)) == "deny"
    assert gate(last(pay, by=POISONED)) == "deny"


def test_a_skip_that_untrusted_text_decides_goes_on_to_what_needs_it() -> None:
    check = step("check", "sales.total", _when=UNTRUSTED)
    tell = step("tell", "mail.send", to="bob@x.com", body="x", _needs=["check"])
    assert gate(last(WEB, check, tell)) == "escalate"
    far = step("far", "mail.send", to="bob@x.com", body="x", _needs=["tell"])
    assert gate(last(WEB, check, tell, far)) == "escalate"


def test_a_step_that_can_do_without_another_is_not_decided_by_it_but_its_value_is() -> None:
    check = step("check", "sales.total", _when=UNTRUSTED)
    body = step("tell", "mail.send", to="bob@x.com", body=ref("steps.check#/total", default="none"))
    assert gate(last(WEB, check, body)) == "allow"
    target = step("tell", "mail.send", to=ref("steps.check#/mail", default="bob@x.com"))
    assert gate(last(WEB, check, target)) == "deny"


def test_whether_untrusted_text_left_something_behind_is_control_too() -> None:
    when = {"left": ref("steps.web#/hits/0"), "op": "exists"}
    assert gate(last(WEB, step("tell", "mail.send", to="bob@x.com", body="x", _when=when))) == "escalate"


def test_how_long_untrusted_text_makes_us_wait_is_control_too() -> None:
    pause = {"id": "pause", "wait": {"for_s": ref("steps.web#/seconds")}}
    assert gate(last(WEB, pause, step("tell", "mail.send", to="bob@x.com", _needs=["pause"]))) == "escalate"


def test_running_after_untrusted_text_was_read_is_not_being_decided_by_it() -> None:
    assert gate(last(WEB, step("tell", "mail.send", to="bob@x.com", body="x", _needs=["web"]))) == "allow"


def test_how_often_is_both_a_target_and_a_decision() -> None:
    facts = last(WEB, step("tell", "mail.send", to="bob@x.com", body="x", _for_each=ref("steps.web#/hits")))
    assert (facts.selectors.integrity, facts.control.integrity) == (0, 0)


def test_a_default_is_a_literal_like_any_other() -> None:
    tell = step("tell", "mail.send", to=ref("run#/context/values/contact", default="eve@x.com"), body="x")
    assert gate(last(tell, by=MODEL)) == "deny"
    assert gate(last(tell, by=MODEL, request=asked("Write to eve@x.com"))) == "allow"


def test_an_approval_step_raises_nothing() -> None:
    ask = {"id": "ask", "approval": {"question": "really?"}, "when": UNTRUSTED}
    assert gate(last(WEB, ask, step("tell", "mail.send", to="bob@x.com", _needs=["ask"]))) == "escalate"


def test_items_of_a_map_are_what_it_goes_over() -> None:
    tell = step("tell", "mail.send", to=ref("item#/mail"), body="x")
    people = tell | {"for_each": ref("run#/context/values/people")}
    assert gate(last(people, request=asked(people=[]))) == "allow"
    assert gate(last(tell | {"for_each": [{"mail": "bob@x.com"}, {"mail": "eve@x.com"}]}, by=MODEL)) == "deny"
    assert gate(last(step("tell", "mail.send", to=ref("item#")))) == "deny"


def test_a_name_that_the_schema_does_not_declare_is_a_word_of_its_author() -> None:
    tell = step("tell", "mail.send", to={"eve@x.com": "bob@x.com"}, body="x")
    assert gate(last(tell, by=MODEL)) == "deny"


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": "run#"},
        {"$ref": "run#/context"},
        {"$ref": "run#/nothing"},
        {"$ref": "steps.nobody#/x"},
        {"$ref": "step.web#/x"},
        {"$ref": ["run#/intent"]},
        {"$ref": {"$ref": "run#/intent"}},
        {"$ref": "run#/intent", "$literal": "x"},
        {"$ref": "run#/intent", "also": 1},
        {"$reff": "run#/intent"},
        {"$ref": "run#/intent~2"},
        {"$template": "{a"},
        {"$template": "{a}"},
        {"$template": "\uff5ba\uff5d{b}", "b": {"$ref": "run"}},
        {"$": 1},
        {"deep": [{"$ref": "run#intent"}]},
    ],
)
def test_what_cannot_be_read_is_worth_nothing(value: Any) -> None:
    found = last(step("tell", "mail.send", to=value, body="x"))
    assert found.selectors.integrity == 0
    assert gate(found) == "deny"


def test_a_plan_that_waits_for_itself_is_worth_nothing() -> None:
    one = step("one", "mail.send", to="bob@x.com", _needs=["two"])
    two = step("two", "mail.send", to=ref("steps.one#/x"), body="x")
    facts = last(one, two)
    assert gate(facts) == "deny"
    assert (facts.control.integrity, facts.output.integrity) == (0, 0)
