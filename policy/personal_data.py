"""The rule of tenants that have their outgoing arguments looked through for personal data nobody labelled.

It stands in front of the other rules' yes and never in the place of one: a call that they deny is denied, and one that
they would let go, or would after a cure, is first asked to be masked where the detector found something. The detector
sees the inputs as they are now, so a mask that was not made, or does not help, is found again. When nobody can look,
nothing goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from engine.domain.base import JsonObject, JsonValue
from engine.domain.capability import Capability
from engine.domain.personal_data import PersonalDataType
from engine.domain.policy import (
    Cure,
    PlanPolicyDecision,
    PlanPolicyRequest,
    PolicyDecision,
    PolicyFinding,
    StepPolicyRequest,
    Verdict,
)
from engine.domain.tenant import TenantConfig
from engine.ports.catalog import Catalog
from engine.ports.personal_data import PersonalDataDetector
from engine.ports.policy import PolicyEngine

RULE = "tenant.personal-data"
NEEDS_MASKING = "policy.needs_masking"
DETECTOR_MISSING = "policy.detector_missing"
DETECTOR_FAILED = "policy.detector_failed"
TOO_LARGE = "policy.detection_too_large"
IN_A_NAME = "policy.masking_impossible"
MAX_CHARS = 20_000
"""All texts of one call together. A phone number is looked for at 5 to 20 characters a millisecond; more would be
seconds."""
_MIN_DIGITS = 12
"""A number with at least so many digits is looked at as text: a card number is one however it is written."""


class DetectingPolicyEngine:
    """Implements the ``PolicyEngine`` port: another one, and this rule for the tenants that have chosen it."""

    def __init__(self, inner: PolicyEngine, detector: PersonalDataDetector, catalog: Catalog) -> None:
        self._inner = inner
        self._detector = detector
        self._catalog = catalog

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """The early answer. Whether there is a detector is known already; what it will find is not."""
        decision = await self._inner.decide_plan(request)
        known = self._catalog.capabilities
        called = (known.get(name) for name in request.capability_names)
        applies = any(one is not None and _applies(request.tenant, one) for one in called)
        if applies and decision.verdict is not Verdict.DENY and (missing := self._missing(request.tenant)):
            return PlanPolicyDecision(**dict(_denied(decision, DETECTOR_MISSING, missing)), steps=decision.steps)
        return decision

    async def decide_step(self, request: StepPolicyRequest) -> PolicyDecision:
        """The authoritative answer: the other one's, and masking before anything else that can be cured."""
        decision = await self._inner.decide_step(request)
        capability = request.capability
        if decision.verdict is Verdict.DENY or capability is None or not _applies(request.tenant, capability):
            return decision
        if missing := self._missing(request.tenant):
            return _denied(decision, DETECTOR_MISSING, missing)
        texts = list(_texts(request.inputs, capability))
        if sum(len(text) for _, text, _ in texts) > MAX_CHARS:
            words = f"its texts have more than {MAX_CHARS:,} characters, which is more than is looked through"
            return _denied(decision, TOO_LARGE, words)
        try:
            found = await asyncio.to_thread(self._look, texts, request.tenant.personal_data.types)
        except Exception as error:
            return _denied(decision, DETECTOR_FAILED, f"the detector of personal data failed: {type(error).__name__}")
        return _judged(decision, found, request.step_id)

    def _missing(self, tenant: TenantConfig) -> str:
        lacking = sorted(set(tenant.personal_data.types) - self._detector.types)
        return f"no detector is installed that finds {', '.join(lacking)}" if lacking else ""

    def _look(self, texts: list[_Text], types: tuple[PersonalDataType, ...]) -> list[_Hit]:
        found: list[_Hit] = []
        for place, text, maskable in texts:
            kinds = sorted({one.type.value for one in self._detector.find(text, types)})
            if kinds:
                found.append((place, kinds, maskable))
        return found


_Text = tuple[str, str, bool]
"""A JSON Pointer into the inputs, the text there, and whether a mask can take its place."""
_Hit = tuple[str, list[str], bool]


def _applies(tenant: TenantConfig, capability: Capability) -> bool:
    return tenant.personal_data.detect == "outgoing" and capability.side_effect == "external"


def _texts(inputs: JsonObject, capability: Capability) -> Iterator[_Text]:
    """Every text that is handed over. Not what is declared to select the target: an address is one, and other rules
    judge it."""
    for name, value in inputs.items():
        if capability.parameters.get(name) == "selector":
            continue
        stack: list[tuple[str, JsonValue]] = [(f"/{_token(name)}", value)]
        while stack:
            place, node = stack.pop()
            if isinstance(node, str):
                yield place, node, True
            elif isinstance(node, dict):
                for key, member in node.items():
                    yield place, key, False
                    stack.append((f"{place}/{_token(key)}", member))
            elif isinstance(node, list):
                stack.extend((f"{place}/{index}", member) for index, member in enumerate(node))
            elif isinstance(node, int | float) and len(str(node)) >= _MIN_DIGITS:
                yield place, str(node), False


def _judged(decision: PolicyDecision, found: list[_Hit], step_id: str) -> PolicyDecision:
    if not found:
        return decision
    fixed = [(place, kinds) for place, kinds, maskable in found if not maskable]
    if fixed:
        words = "; ".join(f"{', '.join(kinds)} in a name or a number below {place}" for place, kinds in fixed[:3])
        return _denied(decision, IN_A_NAME, f"personal data that cannot be masked: {words}")
    places = sorted({place for place, _, _ in found})
    kinds = ", ".join(sorted({kind for _, several, _ in found for kind in several}))
    said = f"step {step_id}: personal data was found in what would leave the company: {kinds}"
    cure = Cure(kind="masking", detail=" ".join(places))
    own = PolicyFinding(policy_id=RULE, severity="curable", message=said, step_id=step_id, pointer=places[0], cure=cure)
    return decision.model_copy(
        update={
            "verdict": Verdict.ESCALATE if decision.verdict is Verdict.ESCALATE else Verdict.TRANSFORM,
            "policy_ids": (*decision.policy_ids, RULE),
            "code": decision.code or NEEDS_MASKING,
            "reasons": (*decision.reasons, f"{said} ({RULE})"),
            "cures": (*decision.cures, cure),
            "findings": (*decision.findings, own),
        }
    )


def _denied(decision: PolicyDecision, code: str, words: str) -> PolicyDecision:
    finding = PolicyFinding(policy_id=RULE, severity="hard", message=words)
    update = {
        "verdict": Verdict.DENY,
        "policy_ids": (*decision.policy_ids, RULE),
        "code": code,
        "reasons": (f"{words} ({RULE})",),
        "cures": (),
        "findings": (finding,),
    }
    return PolicyDecision(**{name: getattr(decision, name) for name in PolicyDecision.model_fields} | update)


def _token(text: str) -> str:
    return text.replace("~", "~0").replace("/", "~1")
