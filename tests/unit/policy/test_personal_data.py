"""The rule for personal data nobody labelled: it only restricts, sees the inputs as they are, and refuses when nobody
can look."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import pytest

from engine.domain.base import JsonObject
from engine.domain.personal_data import BY_PATTERN, Found, PersonalDataRules, PersonalDataType, mark_of, masked
from engine.domain.policy import Cure, PlanPolicyDecision, PlanPolicyRequest, PolicyDecision, StepPolicyRequest, Verdict
from engine.domain.principal import Principal
from engine.domain.tenant import TenantConfig
from engine.ports.personal_data import NoDetector, PersonalDataDetector
from policy.personal_data import (
    DETECTOR_FAILED,
    DETECTOR_MISSING,
    IN_A_NAME,
    MAX_CHARS,
    NEEDS_MASKING,
    RULE,
    TOO_LARGE,
    DetectingPolicyEngine,
)
from tests.support.policy import ALLOW, ScriptedPolicy, deny, escalate, transform
from tests.support.world import capability

SCHEMA = {"type": "object", "properties": {}}
OUT = capability(
    "mail.out", input_schema=SCHEMA, parameters={"to": "selector", "text": "payload"}, side_effect="external"
)
IN = capability("note.in", input_schema=SCHEMA, parameters={"text": "payload"})
WATCHED = TenantConfig(
    tenant_id="contoso",
    display_name="Contoso",
    enabled_capabilities=(OUT.name, IN.name),
    personal_data=PersonalDataRules(detect="outgoing"),
)
CARD = PersonalDataType.CREDIT_CARD


class WordDetector:
    """Finds the word 4111111111111111, and nothing else, in a text. Counts its looks."""

    word = "4111111111111111"

    def __init__(self, types: Collection[PersonalDataType] = BY_PATTERN) -> None:
        self._types = frozenset(types)
        self.looked: list[str] = []

    @property
    def types(self) -> frozenset[PersonalDataType]:
        return self._types

    def find(self, text: str, types: Collection[PersonalDataType]) -> list[Found]:
        self.looked.append(text)
        assert set(types) <= self._types
        at = text.find(self.word)
        return [] if at < 0 else [Found(at, at + len(self.word), CARD)]


class Broken(WordDetector):
    def find(self, text: str, types: Collection[PersonalDataType]) -> list[Found]:
        raise OSError(text)


async def decide(
    inputs: JsonObject,
    detector: PersonalDataDetector | None = None,
    inner: PolicyDecision = ALLOW,
    tenant: TenantConfig = WATCHED,
    called: Any = OUT,
) -> PolicyDecision:
    catalog = cast(Any, type("Catalog", (), {"capabilities": {OUT.name: OUT, IN.name: IN}}))
    engine = DetectingPolicyEngine(ScriptedPolicy({"a": lambda _: inner}), detector or WordDetector(), catalog)
    principal = Principal(tenant_id="contoso", subject="t:ana", kind="user", client_app="cli", roles=frozenset())
    return await engine.decide_step(
        StepPolicyRequest(
            principal=principal, tenant=tenant, run_id="r", plan_hash="h", step_id="a", capability_name=called.name,
            capability=called, inputs=inputs,
        )
    )  # fmt: skip


async def test_what_is_found_asks_to_be_masked_where_it_stands() -> None:
    decision = await decide({"text": {"body": ["fine", f"card {WordDetector.word}"]}, "to": "a"})
    assert decision.verdict is Verdict.TRANSFORM
    assert decision.code == NEEDS_MASKING
    assert decision.cures == (Cure(kind="masking", detail="/text/body/1"),)
    assert RULE in decision.policy_ids
    assert WordDetector.word not in decision.model_dump_json()


async def test_clean_inputs_leave_the_answer_as_it_was() -> None:
    decision = await decide({"text": "nothing"})
    assert decision.allows
    assert decision.policy_ids == ALLOW.policy_ids


async def test_a_mask_that_stands_is_clean() -> None:
    assert (await decide({"text": f"card {mark_of(CARD)}"})).allows


@pytest.mark.parametrize("inner", [deny(), transform("/text"), escalate()], ids=["deny", "transform", "escalate"])
async def test_it_never_makes_another_answer_milder(inner: PolicyDecision) -> None:
    decision = await decide({"text": WordDetector.word}, inner=inner)
    assert decision.verdict is inner.verdict
    assert decision.code == inner.code
    assert set(inner.cures) <= set(decision.cures)
    assert len(decision.cures) == len(inner.cures) + (inner.verdict is not Verdict.DENY)


async def test_a_denied_call_is_not_even_looked_through() -> None:
    detector = WordDetector()
    await decide({"text": "x"}, detector, inner=deny())
    assert detector.looked == []


@pytest.mark.parametrize("detector", [NoDetector(), WordDetector(set(BY_PATTERN) - {CARD})], ids=["none", "lacks one"])
async def test_without_a_detector_for_every_type_nothing_goes(detector: PersonalDataDetector) -> None:
    decision = await decide({"text": "nothing"}, detector)
    assert decision.verdict is Verdict.DENY
    assert decision.code == DETECTOR_MISSING
    assert decision.cures == ()


async def test_a_detector_that_fails_is_a_refusal_that_quotes_nothing() -> None:
    decision = await decide({"text": "very private"}, Broken())
    assert (decision.verdict, decision.code) == (Verdict.DENY, DETECTOR_FAILED)
    assert "very private" not in decision.model_dump_json()


async def test_more_than_can_be_looked_through_is_refused() -> None:
    detector = WordDetector()
    half = "x" * (MAX_CHARS // 2)
    assert (await decide({"text": [half, half]}, detector)).allows
    detector.looked.clear()
    decision = await decide({"text": [half, half, "x"]}, detector)
    assert (decision.verdict, decision.code) == (Verdict.DENY, TOO_LARGE)
    assert detector.looked == []


@pytest.mark.parametrize(
    "value",
    [{WordDetector.word: "x"}, int(WordDetector.word), [float(f"{WordDetector.word}.5")]],
    ids=["name", "int", "float"],
)
async def test_names_and_numbers_have_no_place_for_a_mask(value: Any) -> None:
    decision = await decide({"text": value})
    assert (decision.verdict, decision.code) == (Verdict.DENY, IN_A_NAME)
    assert WordDetector.word not in decision.model_dump_json()


async def test_targets_are_not_looked_through_but_undeclared_parameters_are() -> None:
    assert (await decide({"to": WordDetector.word})).allows
    assert not (await decide({"other": WordDetector.word})).allows


async def test_what_stays_inside_and_tenants_that_did_not_ask_are_left_alone() -> None:
    detector = WordDetector()
    off = WATCHED.model_copy(update={"personal_data": PersonalDataRules()})
    assert (await decide({"text": WordDetector.word}, detector, called=IN)).allows
    assert (await decide({"text": WordDetector.word}, detector, tenant=off)).allows
    assert (await decide({"text": "x"}, NoDetector(), tenant=off)).allows
    assert detector.looked == []


@pytest.mark.parametrize(("names", "denied"), [((OUT.name,), True), ((IN.name,), False)])
async def test_a_plan_that_could_not_send_anything_is_refused_early(names: tuple[str, ...], denied: bool) -> None:
    catalog = cast(Any, type("Catalog", (), {"capabilities": {OUT.name: OUT, IN.name: IN}}))
    engine = DetectingPolicyEngine(ScriptedPolicy(), NoDetector(), catalog)
    principal = Principal(tenant_id="contoso", subject="t:ana", kind="user", client_app="cli", roles=frozenset())
    decision: PlanPolicyDecision = await engine.decide_plan(
        PlanPolicyRequest(principal=principal, tenant=WATCHED, run_id="r", plan_hash="h", capability_names=names)
    )
    assert (decision.code == DETECTOR_MISSING) is denied
    assert (decision.verdict is Verdict.DENY) is denied


def test_masks_of_pieces_that_overlap_are_one() -> None:
    person = PersonalDataType.PERSON
    assert masked("abcdef", [Found(3, 5, CARD), Found(1, 4, person)]) == f"a{mark_of(person)}f"
    assert masked("abcdef", [Found(0, 6, CARD), Found(2, 3, person)]) == mark_of(CARD)
    assert masked("abcdef", [Found(4, 6, CARD), Found(0, 2, person)]) == f"{mark_of(person)}cd{mark_of(CARD)}"
    assert masked("abc", []) == "abc"
