"""Redaction: policy names places, their values go before anybody sees them, and only what still fits is sent."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.memory import MemoryCatalog, MemoryTenantDirectory
from engine.domain.approval import ApprovalAnswer
from engine.domain.execute import ExecuteSucceeded
from engine.domain.outcomes import AwaitingApproval, Denied, Succeeded
from engine.domain.personal_data import BY_PATTERN, Found, PersonalDataType
from engine.domain.policy import REDACTED, Cure, PolicyDecision, StepPolicyRequest, Verdict
from engine.step_runner.redaction import redacted_inputs
from tests.support.policy import ALLOW, APPROVAL, ScriptedPolicy, escalate, transform, without
from tests.support.world import CAPABILITIES, World, capability, plan_of

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "to": {"type": "string", "maxLength": 40},
        "lines": {"type": "array", "items": {"type": "string"}},
        "n": {"type": "integer"},
        "who": {"type": "object"},
        "code": {"type": "string", "enum": ["a", "b"]},
        "a b": {"type": "string"},
    },
}
NOTE = capability("note.write", input_schema=SCHEMA, parameters=dict.fromkeys(SCHEMA["properties"], "payload"))
INPUTS = {"to": "ann@example.org", "lines": ["x", "y"], "n": 1, "who": {"name": "Ann"}, "code": "a", "a b": "z"}


class Noted:
    """A world with one step ``a`` that writes a note, under a scripted policy."""

    def __init__(self, rule: Any) -> None:
        self.world = World()
        names = (*self.world.tenant.enabled_capabilities, NOTE.name)
        tenant = self.world.tenant.model_copy(update={"enabled_capabilities": names})
        self.policy = ScriptedPolicy({"a": rule})
        self.world.deps = dataclasses.replace(
            self.world.deps,
            policy=self.policy,
            catalog=MemoryCatalog((*CAPABILITIES, NOTE)),
            tenants=MemoryTenantDirectory([tenant]),
        )
        self.world.invoker.behaviours[NOTE.name] = lambda request: ExecuteSucceeded(output={"n": 1})

    async def perform(self) -> Any:
        if await self.world.runs.get("contoso", "run-1") is None:
            await self.world.submit(plan_of({"id": "a", "capability": NOTE.name, "inputs": INPUTS}))
        return await self.world.perform("a")

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [call.inputs for call in self.world.invoker.calls]


async def test_the_named_values_are_replaced_and_nothing_else() -> None:
    noted = Noted(without("/to", "/lines/1"))
    assert await noted.perform() == Succeeded()
    assert noted.sent == [INPUTS | {"to": REDACTED, "lines": ["x", REDACTED]}]
    records = await noted.world.deps.audit.read("contoso", after_seq=0, limit=20)
    (intent,) = [record for record in records if record.type.value == "dispatch.intended"]
    assert intent.body["decision"]["redacted"] == ["/lines/1", "/to"]
    assert "ann@example.org" not in json.dumps([record.body for record in records])
    kinds = [record.type.value for record in records]
    assert kinds == ["plan.validated", "policy.decision", "dispatch.intended", "dispatch.result"]
    stored = await noted.world.runs.get_step("contoso", "run-1", "a")
    assert stored is not None
    assert stored.input_sha256 == intent.body["inputs_sha256"]


@pytest.mark.parametrize(
    "pointer", ["/n", "/who", "/code", "/missing", "/lines/7", "/lines/-", "", "no-pointer", "/a b"]
)
async def test_what_cannot_be_replaced_is_not_sent_at_all(pointer: str) -> None:
    """Numbers, objects and closed lists have no place for the word; the last one cannot even be said in a cure."""
    noted = Noted(without(pointer))
    assert await noted.perform() == Denied(code="policy.redaction_impossible")
    assert noted.sent == []


async def test_policy_that_is_not_content_with_what_is_left_has_the_last_word() -> None:
    noted = Noted(lambda request: transform("/to"))
    assert await noted.perform() == Denied(code="policy.transform")
    assert noted.sent == []


async def test_policy_that_always_wants_more_comes_to_an_end() -> None:
    def rule(request: StepPolicyRequest) -> PolicyDecision:
        return transform(f"/lines/{len(request.cures.redacted)}")

    noted = Noted(rule)
    assert await noted.perform() == Denied(code="policy.redaction_impossible")
    assert len(noted.policy.asked) <= 6


async def test_a_person_approves_the_redacted_inputs() -> None:
    def rule(request: StepPolicyRequest) -> PolicyDecision:
        if "/to" not in request.cures.redacted:
            return transform("/to", verdict=Verdict.ESCALATE, more=(APPROVAL,))
        return ALLOW if request.cures.approver_differs else escalate()

    noted = Noted(rule)
    assert isinstance(await noted.perform(), AwaitingApproval)
    (approval,) = await noted.world.deps.approvals.of_run("contoso", "run-1")
    assert approval.redacted == ("/to",)
    shown = json.loads(await noted.world.deps.payloads.get("contoso", "run-1", approval.arguments_ref))
    assert shown["inputs"]["to"] == REDACTED
    answer = ApprovalAnswer(granted=True, by="tid:ben")
    await noted.world.deps.approvals.answer("contoso", "run-1", approval.approval_id, answer)
    assert await noted.perform() == Succeeded()
    assert noted.sent == [INPUTS | {"to": REDACTED}]


async def test_a_redaction_asked_for_after_the_yes_asks_the_person_again() -> None:
    def rule(request: StepPolicyRequest) -> PolicyDecision:
        if not request.cures.approved:
            return escalate()
        return ALLOW if "/to" in request.cures.redacted else transform("/to")

    noted = Noted(rule)
    await noted.perform()
    (first,) = await noted.world.deps.approvals.of_run("contoso", "run-1")
    answer = ApprovalAnswer(granted=True, by="tid:ben")
    await noted.world.deps.approvals.answer("contoso", "run-1", first.approval_id, answer)
    assert isinstance(await noted.perform(), AwaitingApproval)
    assert len(await noted.world.deps.approvals.of_run("contoso", "run-1")) == 2
    assert noted.sent == []


@pytest.mark.parametrize(
    "decision",
    [
        transform("/to").model_copy(update={"cures": ()}),
        transform("/to").model_copy(update={"cures": (APPROVAL.model_copy(update={"kind": "prayer"}),)}),
        escalate().model_copy(
            update={"findings": (escalate().findings[0].model_copy(update={"severity": "hard", "cure": None}),)}
        ),
    ],
    ids=["no cure named", "an unknown cure", "a hard finding beside it"],
)
async def test_a_verdict_that_cannot_be_cured_is_a_denial(decision: PolicyDecision) -> None:
    noted = Noted(lambda request: decision)
    assert await noted.perform() == Denied(code=decision.code)
    assert noted.sent == []
    assert await noted.world.deps.approvals.of_run("contoso", "run-1") == ()


def test_a_value_inside_another_one_that_goes_is_no_obstacle() -> None:
    loose = capability("note.loose", input_schema={"type": "object"}, parameters={})
    inputs = {"who": {"name": "Ann"}}
    assert redacted_inputs(inputs, ["/who", "/who/name"], loose) == {"who": REDACTED}
    assert inputs == {"who": {"name": "Ann"}}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), _JSON, max_size=4), st.lists(st.text(max_size=6), max_size=4))
def test_whatever_pointers_say_the_original_stays_and_nothing_new_comes_in(
    inputs: dict[str, Any], pointers: list[str]
) -> None:
    loose = capability("note.loose", input_schema={"type": "object"}, parameters={})
    before = json.dumps(inputs)
    result = redacted_inputs(inputs, pointers, loose)
    assert json.dumps(inputs) == before
    if result is not None:
        left = json.dumps(result).replace(json.dumps(REDACTED), "")
        assert len(left) <= len(before)


class _Cards:
    """Finds the one card number it knows."""

    types = frozenset(BY_PATTERN)

    def find(self, text: str, types: Any) -> list[Found]:
        at = text.find("4111111111111111")
        return [] if at < 0 else [Found(at, at + 16, PersonalDataType.CREDIT_CARD)]


def _masking(*pointers: str) -> PolicyDecision:
    cure = Cure(kind="masking", detail=" ".join(pointers))
    return PolicyDecision(
        verdict=Verdict.TRANSFORM, policy_ids=("t/test/detected",), code="policy.needs_masking", cures=(cure,)
    )


async def test_a_masked_text_keeps_the_rest_of_its_words() -> None:
    def rule(request: StepPolicyRequest) -> PolicyDecision:
        return ALLOW if "4111111111111111" not in json.dumps(request.inputs) else _masking("/lines/0")

    noted = Noted(rule)
    noted.world.deps = dataclasses.replace(noted.world.deps, personal_data=_Cards())
    inputs = INPUTS | {"lines": ["card 4111111111111111, thanks", "y"]}
    await noted.world.submit(plan_of({"id": "a", "capability": NOTE.name, "inputs": inputs}))
    assert await noted.world.perform("a") == Succeeded()
    assert noted.sent == [INPUTS | {"lines": ["card [redacted: CREDIT_CARD], thanks", "y"]}]
    records = await noted.world.deps.audit.read("contoso", after_seq=0, limit=20)
    (intent,) = [record for record in records if record.type.value == "dispatch.intended"]
    assert intent.body["decision"]["masked"] == ["/lines/0"]
    assert "redacted" not in intent.body["decision"]
    assert "4111" not in json.dumps([record.body for record in records])


@pytest.mark.parametrize("pointer", ["/n", "/who", "/missing", "", "/a b"])
async def test_what_cannot_be_masked_is_not_sent_at_all(pointer: str) -> None:
    noted = Noted(lambda request: _masking(pointer))
    noted.world.deps = dataclasses.replace(noted.world.deps, personal_data=_Cards())
    assert await noted.perform() == Denied(code="policy.masking_impossible")
    assert noted.sent == []


async def test_a_mask_that_does_not_help_ends_it() -> None:
    noted = Noted(lambda request: _masking("/to"))
    noted.world.deps = dataclasses.replace(noted.world.deps, personal_data=_Cards())
    assert await noted.perform() == Denied(code="policy.masking_impossible")
    assert noted.sent == []


async def test_masking_and_redaction_are_made_together() -> None:
    def rule(request: StepPolicyRequest) -> PolicyDecision:
        if "/to" in request.cures.redacted:
            return ALLOW
        return transform("/to", more=(Cure(kind="masking", detail="/to /lines/0"),))

    noted = Noted(rule)
    noted.world.deps = dataclasses.replace(noted.world.deps, personal_data=_Cards())
    assert await noted.perform() == Succeeded()
    assert noted.sent == [INPUTS | {"to": REDACTED}]
    assert noted.policy.asked[-1].cures.masked == ("/lines/0",)
