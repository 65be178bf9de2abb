"""The decision point: built-in rules, then facts about the data flow, then Cedar. Nothing that goes wrong in here is a yes.

A run is held to the policies it was vetted under (its pinned set, named in the plan's provenance) *and* to the platform's forbids
of this moment, so that a kill switch reaches runs that are under way while a tenant's change does not pull the ground from under
them. When the pinned set is not known any more, today's policies are asked alone.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.personal_data import has_mark
from engine.domain.plan import Call, Plan, Step
from engine.domain.policy import (
    REDACTED,
    Cures,
    PlanPolicyDecision,
    PlanPolicyRequest,
    PolicyDecision,
    PolicyFinding,
    StepPolicyRequest,
    Verdict,
)
from engine.plan import BindingEnvironment, Unbound, falls_back
from engine.plan.binding import bind_value
from engine.plan.pointers import parse_pointer, resolve
from engine.ports.catalog import Catalog
from policy.book import Book, Words
from policy.builtin import BuiltinPolicyEngine
from policy.cedar import FORBIDDEN, NO_PERMIT, CedarAnswer, CedarError, CedarRequest, engine_version
from policy.facts import TRUSTED, Label, PlanFacts, StepFacts
from policy.flow import plan_facts, step_facts
from policy.flow.hosts import entry_of
from policy.hashes import sha256_of
from policy.library import UNAVAILABLE, InForce, PolicyLibrary
from policy.questions import Ask, NotSayableError, entities_of, hosts_of_tenant, sayable, step_question, submit_question
from policy.rules import Rule
from policy.verdicts import Subject, refusal, verdict_of

_LOG = logging.getLogger("livoa.policy")
_THREAD_FROM_STEPS = 20
"""Plans of this size are decided in a thread: they take milliseconds that other activities on the loop should have."""

ERROR = "policy.error"
INPUT_NOT_SAYABLE = "policy.input_not_sayable"
PLAN_MISSING = "policy.plan_missing"
_WHAT = {"step": "", "fallback": "the fallback of step {}", "compensation": "the undoing of step {}"}
"""What a call is named in reasons, by its purpose; nothing means the step itself."""


@dataclass(frozen=True, slots=True)
class _Bench:
    """What a decision is made with: the book asked, the platform's book of today when another was pinned, and all rules."""

    book: Book
    platform: Book | None
    words: Words
    rules: Mapping[str, Rule]
    hash: str


@dataclass(frozen=True, slots=True)
class _Case:
    """One question with its subject."""

    subject: Subject
    question: CedarRequest


@dataclass(frozen=True, slots=True)
class _Room:
    """What the questions about the steps of one plan share."""

    request: PlanPolicyRequest
    ask: Ask
    facts: PlanFacts
    words: Words
    environment: BindingEnvironment


class GovernedPolicyEngine:
    """Implements the ``PolicyEngine`` port with the platform's and the tenant's policies."""

    def __init__(self, catalog: Catalog, library: PolicyLibrary) -> None:
        self._catalog = catalog
        self._library = library
        self._builtin = BuiltinPolicyEngine()

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """The early answer: the plan as a whole, and each of its steps with what is known of its arguments."""
        early = await self._builtin.decide_plan(request)
        if not early.allows:
            return early
        plan = request.plan
        if plan is None:
            return _as_plan(_refused(PLAN_MISSING, "the plan was not shown to the decision point"))
        try:
            bench = self._bench(await self._library.in_force(request.tenant.tenant_id), None)
            decide = functools.partial(self._decide_plan, request, plan, bench)
            if len(plan.steps) < _THREAD_FROM_STEPS:
                return decide()
            return await asyncio.to_thread(decide)
        except Exception as error:
            return _as_plan(_broken(error))

    async def decide_step(self, request: StepPolicyRequest) -> PolicyDecision:
        """The authoritative answer, with bound inputs and the cures made so far."""
        early = await self._builtin.decide_step(request)
        if not early.allows or request.capability is None:
            return early
        try:
            in_force = await self._library.in_force(request.tenant.tenant_id)
            pinned = request.provenance.policy_set_hash if request.provenance is not None else ""
            bench = self._bench(in_force, pinned or None)
            return self._decide_step(request, request.capability, bench)
        except Exception as error:
            return _broken(error)

    def _bench(self, today: InForce, pinned_hash: str | None) -> _Bench:
        words = self._library.words()
        if pinned_hash is None or pinned_hash == today.book.hash:
            return _Bench(today.book, None, words, today.book.rules, today.book.hash)
        pinned = self._library.pinned(pinned_hash)
        if pinned is None:
            return _Bench(today.book, None, words, today.book.rules, today.book.hash)
        rules = {**pinned.rules, **today.platform.rules}
        if all(pinned.rules.get(key) == rule for key, rule in today.platform.rules.items()):
            return _Bench(pinned, None, words, rules, pinned.hash)
        # Other platform policies than those of the pinned set: what was approved under that set alone must not pass.
        both = sha256_of({"pinned": pinned.hash, "platform": today.platform.hash})
        return _Bench(pinned, today.platform, words, rules, both)

    def _decide_step(self, request: StepPolicyRequest, capability: Capability, bench: _Bench) -> PolicyDecision:
        if capability != self._catalog.capabilities.get(capability.name):
            return _refused("policy.capability_unknown", f"{capability.name} is not what the catalog says")
        if (made := _made(request)) is not request.cures:
            request = request.model_copy(update={"cures": made})
        facts = self._facts_of(request, capability)
        ask = Ask.of(request)
        hosts = hosts_of_tenant(request.tenant)
        subject = Subject(request.step_id, facts, allowed_hosts=hosts, what=_called(request))
        try:
            question = step_question(
                ask, capability, facts, request.inputs, request.cures, bench.words, purpose=request.purpose
            )
        except NotSayableError as error:
            return _refused(INPUT_NOT_SAYABLE, str(error), error.pointer, request.step_id)
        decided = _decide(bench, ask, (capability,), [_Case(subject, question)])
        return _stamped(decided[0], bench, [question])

    def _facts_of(self, request: StepPolicyRequest, capability: Capability) -> StepFacts:
        if request.plan is None:
            return _unknown_facts(request.step_id, capability, request.inputs)
        return step_facts(
            request.plan,
            request.step_id,
            request.item,
            request.inputs,
            self._catalog.capabilities,
            request.request,
            request.provenance,
            request.tenant,
            request.purpose,
            capability=capability,
            redacted=request.cures.redacted,
            masked=request.cures.masked,
        )

    def _decide_plan(self, request: PlanPolicyRequest, plan: Plan, bench: _Bench) -> PlanPolicyDecision:
        facts = plan_facts(plan, self._catalog.capabilities, request.request, request.provenance, request.tenant)
        ask = Ask.of(request)
        own = _Case(Subject(None, None), submit_question(ask, facts, request.cures))
        cases, steps = [own], dict[str, PolicyDecision]()
        room = _Room(request, ask, facts, bench.words, _environment(request))
        for index, step in enumerate(plan.steps):
            for case in self._step_cases(room, index, step):
                if isinstance(case, PolicyDecision):
                    steps[step.id] = _worse(steps.get(step.id), case)
                else:
                    cases.append(case)
        used = [self._catalog.capabilities[case.question.action.id] for case in cases[1:]]
        decided = _decide(bench, ask, used, cases)
        for case, decision in zip(cases[1:], decided[1:], strict=True):
            step_id = case.subject.step_id or ""
            steps[step_id] = _worse(steps.get(step_id), decision)
        whole = _stamped(_of_plan(decided[0], steps), bench, [case.question for case in cases])
        return PlanPolicyDecision(**dict(whole), steps={key: _named(one, bench) for key, one in steps.items()})

    def _step_cases(self, room: _Room, index: int, step: Step) -> Iterable[_Case | PolicyDecision]:
        """The questions of one step: its call, what stands in for it, and the undoing that it names."""
        if step.capability is not None:
            facts = room.facts.steps[step.id]
            inputs = _known(step.inputs, room.environment, facts)
            where = f"/steps/{index}/inputs"
            yield self._case(room, step, Call(capability=step.capability, inputs=step.inputs), facts, inputs, where)
            if (fallback := self._fallback_of(step)) is not None:
                facts = self._other_facts(room.request, step, inputs, "fallback", fallback)
                call = Call(capability=fallback.name, inputs=step.inputs)
                yield self._case(room, step, call, facts, inputs, where, purpose="fallback")
        if step.compensate_with is not None:
            inputs = _known(step.compensate_with.inputs, room.environment, None)
            facts = self._other_facts(room.request, step, inputs, "compensation")
            where = f"/steps/{index}/compensate_with/inputs"
            yield self._case(room, step, step.compensate_with, facts, inputs, where, purpose="compensation")

    def _fallback_of(self, step: Step) -> Capability | None:
        """What the step would call when its own capability fails."""
        capability = self._catalog.capabilities.get(step.capability or "")
        if capability is None or not falls_back(step, capability):
            return None
        return self._catalog.capabilities.get(capability.fallback or "")

    def _other_facts(
        self,
        request: PlanPolicyRequest,
        step: Step,
        inputs: JsonObject,
        purpose: Literal["fallback", "compensation"],
        capability: Capability | None = None,
    ) -> StepFacts:
        """Facts of a call other than the step's own."""
        assert request.plan is not None
        return step_facts(
            request.plan, step.id, None, inputs, self._catalog.capabilities, request.request, request.provenance,
            request.tenant, purpose, capability=capability,
        )  # fmt: skip

    def _case(
        self,
        room: _Room,
        step: Step,
        call: Call,
        facts: StepFacts,
        inputs: JsonObject,
        where: str,
        *,
        purpose: str = "step",
    ) -> _Case | PolicyDecision:
        name = call.capability
        capability = self._catalog.capabilities.get(name)
        if capability is None or not room.request.tenant.enables(name):
            return _refused("policy.capability_not_enabled", f"{name} is not enabled", where, step.id)
        inputs = sayable(inputs, capability, room.words)
        known = None if call.inputs.keys() <= inputs.keys() else frozenset(inputs)
        what = _WHAT[purpose].format(step.id)
        subject = Subject(step.id, facts, where, known, what, hosts_of_tenant(room.request.tenant))
        # The plan's own cures are for the plan; what cures a step is looked at when the step is about to run.
        question = step_question(room.ask, capability, facts, inputs, Cures(), room.words, purpose=purpose)
        return _Case(subject, question)


def _decide(bench: _Bench, ask: Ask, used: Iterable[Capability], cases: list[_Case]) -> list[PolicyDecision]:
    entities = entities_of(ask, used, bench.words)
    questions = [case.question for case in cases]
    # The first is the step, or the plan as a whole. The steps of a plan are asked again, and checked, when they are due.
    answers = bench.book.ask(questions[:1], entities, bench.words)
    if questions[1:]:
        answers += bench.book.ask(questions[1:], entities, bench.words, checked=False)
    if bench.platform is not None:
        today = bench.platform.ask(questions, entities, bench.words)
        answers = [_stricter(pinned, now) for pinned, now in zip(answers, today, strict=True)]
    return [
        verdict_of(answer, bench.rules, case.subject, bench.book.slice_for(_actions_of(case, bench.words)).on_inputs)
        for answer, case in zip(answers, cases, strict=True)
    ]


def _actions_of(case: _Case, words: Words) -> frozenset[str]:
    return words.actions[case.question.action.id]


def _stricter(pinned: CedarAnswer, now: CedarAnswer) -> CedarAnswer:
    """Both must agree. The platform permits nothing by itself, so no permit is its way of having no objection."""
    if now.code == NO_PERMIT or now.outcome == "allow":
        return pinned
    if pinned.outcome == "allow" or now.code != FORBIDDEN:
        return now
    if pinned.code != FORBIDDEN:
        return pinned
    return CedarAnswer("deny", tuple(sorted({*now.ids, *pinned.ids})), FORBIDDEN)


def _environment(request: PlanPolicyRequest) -> BindingEnvironment:
    """What of a run is known before any step: what was asked."""
    asked = request.request
    if asked is None:
        return BindingEnvironment(run={}, outputs={})
    documents = [{"name": one.name, "text": one.text} for one in asked.context.documents]
    context = {"values": asked.context.values, "documents": documents}
    return BindingEnvironment(run={"intent": asked.intent, "goals": list(asked.goals), "context": context}, outputs={})


def _known(inputs: JsonObject, environment: BindingEnvironment, facts: StepFacts | None) -> JsonObject:
    """The arguments whose values are certain before any step has run."""
    unbound = {one.name for one in facts.arguments if not one.bound} if facts is not None else set()
    found: JsonObject = {}
    for name, value in inputs.items():
        if name in unbound or (facts is None and _refers(value)):
            continue
        bound = bind_value(value, (None, name), environment)
        if not isinstance(bound, Unbound):
            found[name] = bound
    return found


def _refers(value: object) -> bool:
    """True when anything in a value is an expression: an undoing may refer to the output of its own step."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if any(key.startswith("$") for key in node):
                return True
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False


_ORDER = (Verdict.ALLOW, Verdict.DEFERRED, Verdict.TRANSFORM, Verdict.ESCALATE, Verdict.DENY)


def _worse(one: PolicyDecision | None, other: PolicyDecision) -> PolicyDecision:
    if one is None:
        return other
    return max((one, other), key=lambda decision: _ORDER.index(decision.verdict))


def _of_plan(own: PolicyDecision, steps: Mapping[str, PolicyDecision]) -> PolicyDecision:
    """The verdict on running the plan at all: its own, unless a step is refused whatever its arguments will be."""
    refused = [one for one in steps.values() if one.verdict is Verdict.DENY]
    ids = {rule_id for one in (own, *steps.values()) for rule_id in one.policy_ids}
    if own.verdict is not Verdict.DENY and not refused:
        return own.model_copy(update={"policy_ids": tuple(sorted(ids))})
    denials = [one for one in (own, *refused) if one.verdict is Verdict.DENY]
    findings = [found for one in denials for found in _findings(one)]
    return refusal(denials[0].code, findings, sorted(ids))


def _findings(decision: PolicyDecision) -> tuple[PolicyFinding, ...]:
    if decision.findings:
        return decision.findings
    words = "; ".join(decision.reasons) or "policy denies it"
    return (PolicyFinding(policy_id=decision.code or ERROR, severity="hard", message=words),)


def _made(request: StepPolicyRequest) -> Cures:
    """The cures that were really made: a place counts as redacted or masked when the mark stands in it."""
    cures = request.cures
    if not cures.redacted and not cures.masked:
        return cures
    redacted = tuple(place for place in cures.redacted if _at(place, request.inputs) == REDACTED)
    masked = tuple(
        place for place in cures.masked if isinstance(text := _at(place, request.inputs), str) and has_mark(text)
    )
    return cures.model_copy(update={"redacted": redacted, "masked": masked})


def _at(place: str, inputs: JsonObject) -> object:
    tokens = parse_pointer(place)
    return resolve(inputs, tokens) if tokens else None


def _called(request: StepPolicyRequest) -> str:
    match request.purpose:
        case "step":
            item = f" item {request.item}" if request.item is not None else ""
            return f"step {request.step_id}{item}"
        case "fallback":
            return f"the fallback of step {request.step_id}"
        case "compensation":
            return f"the undoing of step {request.step_id}"


def _unknown_facts(step_id: str, capability: Capability, inputs: JsonObject) -> StepFacts:
    """Nothing is known of where the inputs come from, so nothing is trusted."""
    nothing = Label(0, 3, True)
    return StepFacts(
        step_id=step_id,
        capability=capability.name,
        arguments=(),
        selectors=nothing if inputs else TRUSTED,
        payload=nothing if inputs else TRUSTED,
        control=nothing,
        output=nothing,
        external_hosts=frozenset(map(entry_of, capability.egress_hosts)),
    )


def _stamped(decision: PolicyDecision, bench: _Bench, questions: list[CedarRequest]) -> PolicyDecision:
    facts = hashlib.sha256()
    for one in questions:
        facts.update(f"{one.action.id}\n{one.context_text}\n".encode())
    return _named(decision, bench, facts_hash=facts.hexdigest())


def _named(decision: PolicyDecision, bench: _Bench, **also: str) -> PolicyDecision:
    update = {
        "policy_set_hash": bench.hash,
        "schema_hash": bench.words.hash,
        "engine_version": engine_version(),
        **also,
    }
    return decision.model_copy(update=update)


def _refused(code: str, words: str, pointer: str = "", step_id: str | None = None) -> PolicyDecision:
    finding = PolicyFinding(policy_id=code, severity="hard", message=words, step_id=step_id, pointer=pointer)
    return PolicyDecision(verdict=Verdict.DENY, code=code, reasons=(words,), findings=(finding,))


def _broken(error: Exception) -> PolicyDecision:
    """Whatever went wrong, the answer is no; the place is logged, values are not."""
    if isinstance(error, LivoaError):
        if error.code != UNAVAILABLE:  # of that the library tells once, not with each decision
            _LOG.error("the decision failed: %s", error.pointer or "no place", extra={"code": error.code})
        return _refused(error.code, error.message, error.pointer or "")
    _LOG.exception("the decision failed")
    words = str(error) if isinstance(error, CedarError) else type(error).__name__
    return _refused(error.code if isinstance(error, CedarError) else ERROR, f"the decision failed: {words}")


def _as_plan(decision: PolicyDecision) -> PlanPolicyDecision:
    return PlanPolicyDecision(**dict(decision))
