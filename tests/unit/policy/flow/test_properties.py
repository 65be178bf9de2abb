"""Over random plans: less trust never allows more, what is said is the same everywhere, and nothing unreadable is trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.plan import Plan
from engine.domain.run import PlanProvenance
from engine.plan.expressions import Reference, is_expression, parse_expression
from policy.facts import PlanFacts
from policy.flow import plan_facts
from tests.unit.policy.flow.samples import CAPABILITIES, TENANT, asked, facts_of, gate, step

ROOT = Path(__file__).resolve().parents[4]
SOURCES = (
    "run#/intent", "run#/goals/0", "run#/context/values/x", "run#/context/documents/0/text",
)  # fmt: skip
"""From the most to the least trusted."""
WORST = SOURCES[-1]
NAMES = {name: sorted(one.parameters) for name, one in CAPABILITIES.items()}


@st.composite
def values(draw: st.DrawFn, earlier: list[str], deep: bool = True) -> Any:
    kinds = ["literal", "run"] + (["step"] if earlier else []) + (["list", "template", "default"] if deep else [])
    match draw(st.sampled_from(kinds)):
        case "literal":
            return draw(st.sampled_from(["bob@x.com", "eve@x.com", 63, "finance@contoso.com", None]))
        case "run":
            return {"$ref": draw(st.sampled_from(SOURCES))}
        case "step":
            return {"$ref": f"steps.{draw(st.sampled_from(earlier))}#/x"}
        case "list":
            return draw(st.lists(values(earlier, False), min_size=1, max_size=3))
        case "template":
            return {"$template": "{a}-{b}", "a": draw(values(earlier, False)), "b": draw(values(earlier, False))}
        case _:
            return {
                "$ref": draw(st.sampled_from(SOURCES)),
                "default": draw(st.sampled_from(["bob@x.com", "eve@x.com"])),
            }


@st.composite
def plans(draw: st.DrawFn) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 7))):
        earlier = [one["id"] for one in steps]
        name = draw(st.sampled_from(sorted(NAMES)))
        one: dict[str, Any] = step(f"s{index}", name, **{key: draw(values(earlier)) for key in NAMES[name]})
        if earlier and draw(st.booleans()):
            one["needs"] = [draw(st.sampled_from(earlier))]
        if draw(st.integers(0, 3)) == 0:
            one["when"] = {"left": draw(values(earlier, False)), "op": "eq", "right": 1}
        if draw(st.integers(0, 4)) == 0:
            one["for_each"] = draw(values(earlier, False))
            one["inputs"][NAMES[name][0]] = {"$ref": "item#/x"}
        steps.append(one)
    return steps


def references(node: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the references to the run's values are."""
    if isinstance(node, dict) and is_expression(node):
        parsed = parse_expression(node)
        if isinstance(parsed, Reference) and parsed.source == "run":
            return [place]
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, member in members for found in references(member, (*place, key))]


def replaced(node: Any, place: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(node))
    inner = copy
    for key in place:
        inner = inner[key]
    inner["$ref"] = value
    return copy


RANK = {"allow": 0, "escalate": 1, "deny": 2}


def no_better(worse: PlanFacts, better: PlanFacts) -> None:
    for step_id, before in better.steps.items():
        after = worse.steps[step_id]
        for name in ("selectors", "payload", "control", "output"):
            low, high = getattr(after, name), getattr(before, name)
            assert low.integrity <= high.integrity, (step_id, name)
            assert low.confidentiality >= high.confidentiality, (step_id, name)
            assert low.pii >= high.pii, (step_id, name)
        assert RANK[gate(after)] >= RANK[gate(before)]


AUTHORS = st.sampled_from(
    [
        PlanProvenance(source=source, seen_integrity=seen)
        for source in ("caller", "playbook", "model")
        for seen in range(4)
    ]
)


@settings(max_examples=80, deadline=None)
@given(steps=plans(), by=AUTHORS, data=st.data())
def test_taking_a_source_for_untrusted_never_allows_more(steps: list[Any], by: PlanProvenance, data: Any) -> None:
    before = facts_of(*steps, by=by)
    places = references(steps)
    if places:
        place = data.draw(st.sampled_from(places))
        no_better(facts_of(*replaced(steps, place, WORST), by=by), before)
    no_better(facts_of(*steps, by=None), before)
    if by.seen_integrity:
        no_better(facts_of(*steps, by=by.model_copy(update={"seen_integrity": by.seen_integrity - 1})), before)


@settings(max_examples=40, deadline=None)
@given(steps=plans(), by=AUTHORS, name=st.sampled_from(sorted(CAPABILITIES)))
def test_a_manifest_that_promises_less_never_allows_more(steps: list[Any], by: PlanProvenance, name: str) -> None:
    own = CAPABILITIES[name]
    label = own.output_label.model_copy(update={"integrity": 0, "confidentiality": 3, "pii": True})
    less = CAPABILITIES | {name: own.model_copy(update={"output_label": label})}
    plan = Plan.model_validate({"goal": "test", "steps": steps})
    before = plan_facts(plan, CAPABILITIES, asked(), by, TENANT)
    no_better(plan_facts(plan, less, asked(), by, TENANT), before)


@settings(max_examples=40, deadline=None)
@given(steps=plans(), by=AUTHORS)
def test_nothing_is_trusted_more_than_the_least_of_its_sources(steps: list[Any], by: PlanProvenance) -> None:
    """The other direction: a plan without untrusted sources, by the user, is not suspected of anything."""
    text = json.dumps(steps).replace(WORST, SOURCES[0]).replace(SOURCES[2], SOURCES[0])
    clean = [one for one in json.loads(text) if one["capability"] != "web.search"]
    kept = {one["id"] for one in clean}
    if not clean or any(f"steps.{gone}#" in text for gone in {one["id"] for one in steps} - kept):
        return
    for one in clean:
        one["needs"] = [need for need in one.get("needs", ()) if need in kept]
    facts = facts_of(*clean, by=PlanProvenance(source="caller"))
    assert all(found.control.integrity >= 2 and found.selectors.integrity >= 2 for found in facts.steps.values())


_PIECES = st.sampled_from(
    ["run", "steps", "item", ".web", ".", "#", "/", "intent", "context", "documents", "values", "~1", "~0", "~", "{", "}",
     "{{", "$ref", " ", "\u200b", "\uff03", "%23", "\\", "\n", "web", "0", "-1", "..", "$"]
)  # fmt: skip
_TRUSTED = ("run#/intent", "run#/goals", "run#/context/values")


@settings(max_examples=150, deadline=None)
@given(text=st.lists(_PIECES, max_size=9).map("".join))
def test_a_reference_is_trusted_only_when_it_says_exactly_a_trusted_source(text: str) -> None:
    facts = facts_of(
        step("web", "web.search"), step("tell", "mail.send", to={"$ref": text}), by=PlanProvenance(source="caller")
    )
    trusted = any(text == root or text.startswith(f"{root}/") for root in _TRUSTED)
    if not trusted:
        assert facts.steps["tell"].selectors.integrity == 0


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$ref", "$template", "$literal", "default", "a", "$x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(value=_JSON)
def test_any_value_has_facts(value: Any) -> None:
    facts = facts_of(
        step("tell", "mail.send", to=value, _for_each=value), by=PlanProvenance(source="model", seen_integrity=0)
    )
    assert gate(facts.steps["tell"]) != "allow"


_PROGRAM = """
import json, sys
from tests.unit.policy.flow.samples import *
web = step("web", "web.search", query=ref("run#/intent"))
text = {"$template": "{a}{b}", "a": ref("steps.web#/a"), "b": ref("steps.web#/b")}
more = [step(f"m{i}", "llm.extract", text=text) for i in range(9)]
tell = step("tell", "mail.send", to=[ref(f"steps.m{i}#/x") for i in range(9)], body={"k": 1, "j": 2}, _needs=["web"])
facts = facts_of(web, *more, tell, by=MODEL, request=asked(a=1, b="x"))
print([repr(facts.steps[name].arguments) + repr(facts.steps[name].control_from) for name in facts.steps])
"""


def test_hash_seeds_change_nothing() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    assert b"steps.tell.inputs/to/0" in said.pop()
