"""A refusal can be understood: the way from the source to the place of use, the shortest there is, never too long to read."""

from __future__ import annotations

from policy.facts import Label
from policy.flow.traces import MAX_SHOWN
from tests.unit.policy.flow.samples import CALLER, EXTRACT, POISONED, WEB, argument, asked, facts_of, last, ref, step

DOCUMENT = ref("run#/context/documents/0/text")


def test_the_way_leads_from_the_source_to_the_argument() -> None:
    extract = step("extract", "llm.extract", text=DOCUMENT)
    tell = step("tell", "mail.send", to=["bob@x.com", ref("steps.extract#/mail")], body="x")
    facts = last(extract, tell, request=asked(documents=("x",)))
    way = argument(facts, "to").integrity_from
    assert way.path == ("run#/context/documents/0/text", "steps.extract#/mail", "steps.tell.inputs/to/1")
    assert way.pointer == "/steps/1/inputs/to/1"
    assert facts.selectors_from == way
    assert argument(facts, "body").integrity_from is None


def test_a_step_whose_own_output_is_untrusted_is_the_source() -> None:
    tell = step("tell", "mail.send", to=ref("steps.web#/hits/0/mail"))
    assert argument(last(WEB, tell), "to").integrity_from.path == ("steps.web#/hits/0/mail", "steps.tell.inputs/to")


def test_of_two_ways_the_shorter_is_told() -> None:
    tell = step("tell", "mail.send", to={"$template": "{a}{b}", "a": ref("steps.extract#/a"), "b": ref("steps.web#/b")})
    assert argument(last(WEB, EXTRACT, tell), "to").integrity_from.path == ("steps.web#/b", "steps.tell.inputs/to")


def test_the_way_of_a_decision_names_the_condition_and_the_steps_it_went_on_to() -> None:
    check = step("check", "sales.total", _when={"left": ref("steps.web#/urgent"), "op": "eq", "right": True})
    tell = step("tell", "mail.send", to="bob@x.com", _needs=["check"])
    way = last(WEB, check, tell).control_from
    assert way is not None
    assert way.path == ("steps.web#/urgent", "steps.check.when/left", "steps.tell.needs/check")
    assert way.pointer == "/steps/2/needs/check"


def test_a_plan_by_a_model_that_read_documents_says_so() -> None:
    way = last(step("tell", "mail.send", to="bob@x.com"), by=POISONED).control_from
    assert way is not None
    assert way.path == ("a model that read integrity 0",)


def test_a_made_up_literal_says_whose_it_is() -> None:
    way = argument(last(step("tell", "mail.send", to="eve@x.com"), by=POISONED), "to").integrity_from
    assert way.path == ("literal of a model that read integrity 0", "steps.tell.inputs/to")


def test_a_count_is_a_selector_with_its_way() -> None:
    facts = last(WEB, step("tell", "mail.send", to="bob@x.com", _for_each=ref("steps.web#/hits")))
    assert facts.selectors_from is not None
    assert facts.selectors_from.path == ("steps.web#/hits", "steps.tell.for_each")


def test_confidentiality_and_persons_have_ways_of_their_own() -> None:
    crm = step("crm", "crm.find", key="bob")
    total = step("total", "sales.total")
    body = {"$template": "{a} {b}", "a": ref("steps.total#/x"), "b": ref("steps.crm#/name")}
    told = argument(last(crm, total, step("tell", "mail.send", to="bob@x.com", body=body)), "body")
    assert told.label == Label(2, 2, True)
    assert told.confidentiality_from.path == ("steps.crm#/name", "steps.tell.inputs/body")
    assert told.pii_from.path == ("steps.crm#/name", "steps.tell.inputs/body")
    assert told.personal == ("/body",)


def test_a_summary_of_personal_records_is_personal() -> None:
    crm = step("crm", "crm.find", key="bob")
    text = step("sum", "llm.extract", text=ref("steps.crm#"))
    assert last(crm, text).output == Label(2, 2, True)


def test_a_long_way_is_shortened_in_the_middle() -> None:
    steps = [WEB] + [
        step(f"s{i}", "llm.extract", text=ref("steps.web#/x" if i == 0 else f"steps.s{i - 1}#/x")) for i in range(4_999)
    ]
    facts = facts_of(*steps, by=CALLER)
    way = argument(facts.steps["s4998"], "text").integrity_from.path
    assert len(way) == MAX_SHOWN
    assert way[0] == "steps.web#/x"
    assert way[1] == f"… {5_000 - (MAX_SHOWN - 1)} more …"
    assert way[-2:] == ("steps.s4997#/x", "steps.s4998.inputs/text")
    assert facts.depth == 5_000


def test_a_long_place_is_cut() -> None:
    tell = step("tell", "mail.send", to=ref("run#/context/documents/0/" + "x" * 5_000))
    assert max(map(len, argument(last(tell), "to").integrity_from.path)) == 200


def test_the_plan_as_a_whole_is_counted() -> None:
    many = step("many", "mail.send", to=ref("item#"), _for_each=ref("run#/context/values/x"), _max_items=20)
    every = step("every", "mail.send", to=ref("item#"), _for_each=ref("run#/context/values/x"))
    facts = facts_of(WEB, many, every, step("three", "llm.extract", text=ref("item#"), _for_each=[1, 2, 3]))
    assert (facts.step_count, facts.depth, facts.fan_out, facts.cost_micro_usd) == (4, 1, 50, 0)
    assert [facts.steps[name].items_at_most for name in ("web", "many", "every", "three")] == [1, 20, 50, 3]
