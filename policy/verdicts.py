"""From Cedar's answer to a verdict with its reasons: what stands in the way, whether it can be cured, and the way it came.

An allow is only ever Cedar's own. A forbid that can be cured is still a forbid; the verdict merely tells what to do before
asking again. A verdict before the arguments are known refuses only what no argument could change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.domain.policy import Cure, PolicyDecision, PolicyFinding, Verdict
from policy.cedar import FORBIDDEN, NO_PERMIT, CedarAnswer
from policy.facts import ArgumentFacts, Origin, StepFacts
from policy.questions import personal_of
from policy.rules import ABOUT_INPUT, Rule

NEEDS_APPROVAL = "policy.needs_approval"
NEEDS_REDACTION = "policy.needs_redaction"
MAX_FINDINGS = 20
MAX_REASONS = 5
TRUSTED_ENOUGH = 2
"""Integrity of what may choose the target of a side effect: the tenant's own systems and configuration."""

_Badness = Callable[[ArgumentFacts], Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a verdict is about. ``where`` is the JSON Pointer under which the inputs stand; ``bound`` are the arguments known,
    None for all of them (a call that is about to happen)."""

    step_id: str | None
    facts: StepFacts | None
    where: str = ""
    bound: frozenset[str] | None = None
    what: str = ""
    allowed_hosts: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """How a person calls it."""
        return self.what or (f"step {self.step_id}" if self.step_id is not None else "the plan")


def verdict_of(
    answer: CedarAnswer, rules: Mapping[str, Rule], subject: Subject, on_inputs: Sequence[Rule] = ()
) -> PolicyDecision:
    """The verdict on one answer. ``rules`` are those that were asked, by id; ``on_inputs`` those of them that can apply to the
    action and look at its arguments."""
    if answer.outcome == "allow":
        open_rules = _uncertain(on_inputs, subject)
        verdict = Verdict.DEFERRED if open_rules else Verdict.ALLOW
        return PolicyDecision(verdict=verdict, policy_ids=answer.ids, reasons=_waiting(open_rules, subject))
    if answer.code == NO_PERMIT:
        return _no_permit(on_inputs, subject)
    if answer.code == FORBIDDEN and all(rule_id in rules for rule_id in answer.ids):
        return _forbidden([rules[rule_id] for rule_id in answer.ids], subject)
    words = f"{subject.words}: the policies could not be evaluated ({'; '.join(answer.errors) or answer.code})"
    return PolicyDecision(verdict=Verdict.DENY, policy_ids=answer.ids, code=answer.code, reasons=(words,))


def _uncertain(on_inputs: Iterable[Rule], subject: Subject) -> list[Rule]:
    bound = subject.bound
    return [] if bound is None else [rule for rule in on_inputs if not rule.certain_with(bound)]


def _waiting(rules: Sequence[Rule], subject: Subject) -> tuple[str, ...]:
    if not rules:
        return ()
    ids = ", ".join(sorted(rule.id for rule in rules)[:MAX_REASONS])
    return (f"{subject.words}: its arguments decide when they are known ({ids})",)


def _no_permit(on_inputs: Iterable[Rule], subject: Subject) -> PolicyDecision:
    hopeful = [rule for rule in _uncertain(on_inputs, subject) if not rule.forbids]
    if hopeful:
        return PolicyDecision(verdict=Verdict.DEFERRED, reasons=_waiting(hopeful, subject))
    words = f"{subject.words}: no policy permits it"
    return PolicyDecision(verdict=Verdict.DENY, code=NO_PERMIT, reasons=(words,))


def _forbidden(forbids: Sequence[Rule], subject: Subject) -> PolicyDecision:
    sure = [rule for rule in forbids if subject.bound is None or rule.certain_with(subject.bound)]
    if not sure:
        return PolicyDecision(verdict=Verdict.DEFERRED, reasons=_waiting(forbids, subject))
    hard = [rule for rule in sure if rule.cure is None]
    findings = [finding_of(rule, subject) for rule in (*hard, *(rule for rule in sure if rule.cure is not None))]
    ids = tuple(rule.id for rule in sure)
    if hard:
        return refusal(FORBIDDEN, findings, ids)
    cures = tuple(dict.fromkeys(found.cure for found in findings if found.cure is not None))
    approval = any(cure.kind == "approval" for cure in cures)
    return PolicyDecision(
        verdict=Verdict.ESCALATE if approval else Verdict.TRANSFORM,
        policy_ids=ids,
        code=NEEDS_APPROVAL if approval else NEEDS_REDACTION,
        reasons=_reasons(findings),
        cures=cures,
        findings=tuple(findings[:MAX_FINDINGS]),
    )


def refusal(code: str, findings: Sequence[PolicyFinding], ids: Iterable[str]) -> PolicyDecision:
    """A deny with its findings, the hard ones first."""
    return PolicyDecision(
        verdict=Verdict.DENY,
        policy_ids=tuple(ids),
        code=code,
        reasons=_reasons(findings),
        findings=tuple(findings[:MAX_FINDINGS]),
    )


def _reasons(findings: Sequence[PolicyFinding]) -> tuple[str, ...]:
    reasons = []
    for found in findings[:MAX_REASONS]:
        way = f", by way of {' → '.join(found.path)}" if found.path else ""
        reasons.append(f"{found.message}{way} ({found.policy_id})")
    return tuple(reasons)


def finding_of(rule: Rule, subject: Subject) -> PolicyFinding:
    """What one forbid has against the subject, with the way through the graph that it is about."""
    facts = subject.facts
    said = rule.message or "a policy forbids it"
    argument, origin = _cause(rule.about, facts) if facts is not None else (None, None)
    if rule.about == "hosts" and facts is not None:
        odd = sorted(facts.untrusted_hosts | (facts.external_hosts - subject.allowed_hosts))
        said = f"{said}: {', '.join(odd[:MAX_REASONS])}" if odd else said
    if argument is not None:
        said = f"{said} ({argument.name})"
    return PolicyFinding(
        policy_id=rule.id,
        severity="hard" if rule.cure is None else "curable",
        message=f"{subject.words}: {said}",
        step_id=subject.step_id,
        pointer=_place(subject, argument, origin),
        path=origin.path if origin is not None else (),
        cure=_cure(rule.cure, facts),
    )


def _cause(about: str, facts: StepFacts) -> tuple[ArgumentFacts | None, Origin | None]:
    """The argument, and the way, that a policy about this aspect means: the worst there is."""
    if about.startswith(ABOUT_INPUT):
        named = [one for one in facts.arguments if one.name == about.removeprefix(ABOUT_INPUT)]
        return (named[0], named[0].integrity_from) if named else (None, None)
    match about:
        case "control":
            return None, facts.control_from
        case "selectors":
            return _worst_selector(facts)
        case "payload":
            handed_over = [*_of_class(facts, "payload"), *_of_class(facts, "control")]
            worst = _worst(handed_over, lambda one: not one.label.pii)
            return (worst, worst.pii_from) if worst is not None and worst.label.pii else (None, None)
        case "confidentiality":
            worst = _worst(list(facts.arguments), lambda one: -one.label.confidentiality)
            return (worst, worst.confidentiality_from) if worst is not None else (None, None)
        case _:
            return None, None


def _worst_selector(facts: StepFacts) -> tuple[ArgumentFacts | None, Origin | None]:
    worst = _worst(_of_class(facts, "selector"), lambda one: (one.label.integrity, not one.label.pii))
    if facts.selectors.integrity < TRUSTED_ENOUGH:
        if worst is not None and worst.label.integrity == facts.selectors.integrity:
            return worst, worst.integrity_from
        return None, facts.selectors_from  # the count of a map is a selector without a name
    personal = [one for one in _of_class(facts, "selector") if one.label.pii]
    return (personal[0], personal[0].pii_from) if personal else (None, None)


def _of_class(facts: StepFacts, parameter_class: str) -> list[ArgumentFacts]:
    return [one for one in facts.arguments if one.parameter_class == parameter_class]


def _worst(arguments: Sequence[ArgumentFacts], badness: _Badness) -> ArgumentFacts | None:
    return min(arguments, key=badness, default=None)


def _place(subject: Subject, argument: ArgumentFacts | None, origin: Origin | None) -> str:
    if argument is not None:
        return f"{subject.where}/{argument.name.replace('~', '~0').replace('/', '~1')}"
    if origin is not None and origin.pointer:
        return origin.pointer
    return subject.where


def _cure(cure: Cure | None, facts: StepFacts | None) -> Cure | None:
    if cure is None or cure.kind != "redaction" or facts is None:
        return cure
    return Cure(kind="redaction", detail=" ".join(personal_of(facts)))
