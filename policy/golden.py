"""Golden requests: questions with the verdict their owner expects, kept beside the policies and asked whenever those change.

They state facts directly (labels, hosts, cures) in place of a plan, so that they test policies and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, JsonObject
from engine.domain.capability import Capability
from engine.domain.policy import Cures, PolicyDecision, Verdict
from engine.domain.principal import Principal, Role
from engine.domain.run import PlanProvenance
from engine.domain.tenant import TenantConfig
from policy.book import Book, Words
from policy.facts import ArgumentFacts, Label, PlanFacts, StepFacts
from policy.questions import Ask, NotSayableError, entities_of, step_question, submit_question
from policy.schema import SUBMIT
from policy.verdicts import Subject, verdict_of

MAX_REQUESTS = 1_000


class GoldenLabel(Frozen):
    """A label; by default that of the user's own words."""

    integrity: int = Field(default=3, ge=0, le=3)
    confidentiality: int = Field(default=0, ge=0, le=3)
    pii: bool = False


class GoldenFlow(Frozen):
    """Facts of the call asked about. ``personal`` are JSON Pointers into the inputs."""

    selectors: GoldenLabel = GoldenLabel()
    payload: GoldenLabel = GoldenLabel()
    control: GoldenLabel = GoldenLabel()
    external_hosts: tuple[str, ...] = ()
    untrusted_hosts: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()
    items_at_most: int = Field(default=1, ge=0)


class GoldenBudget(Frozen):
    """Facts of the plan asked about (``ask: plan.submit``)."""

    steps: int = 1
    depth: int = 1
    fan_out: int = 1
    cost_micro_usd: int = 0


class GoldenCaller(Frozen):
    """Who asks. ``tenant`` other than the policies' own shows what isolation says."""

    kind: Literal["user", "app"] = "user"
    roles: tuple[Role, ...] = (Role.RUNS_SUBMIT,)
    tenant: str | None = None


class GoldenAnswer(Frozen):
    """The verdict expected, and exactly the policies that make it, when they matter."""

    verdict: Verdict
    policies: tuple[str, ...] | None = None


class GoldenRequest(Frozen):
    """One question: a capability with its bound inputs, or ``plan.submit``."""

    name: str = Field(min_length=1, max_length=200)
    ask: str
    caller: GoldenCaller = GoldenCaller()
    inputs: JsonObject = Field(default_factory=dict)
    flow: GoldenFlow = GoldenFlow()
    budget: GoldenBudget = GoldenBudget()
    cures: Cures = Cures()
    planned_by: Literal["caller", "playbook", "model"] = "caller"
    expect: GoldenAnswer


class GoldenPage(Frozen):
    """A page of golden requests."""

    name: str = Field(min_length=1, max_length=100)
    requests: tuple[GoldenRequest, ...] = Field(min_length=1, max_length=MAX_REQUESTS)


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """How one golden request was answered."""

    page: str
    request: GoldenRequest
    decision: PolicyDecision

    @property
    def as_expected(self) -> bool:
        """True when the verdict is the expected one, and so are the policies where they are listed."""
        expect = self.request.expect
        if self.decision.verdict is not expect.verdict:
            return False
        return expect.policies is None or set(expect.policies) == set(self.decision.policy_ids)


def ask_golden(
    pages: Sequence[GoldenPage],
    tenant: TenantConfig,
    book: Book,
    words: Words,
    capabilities: Mapping[str, Capability],
) -> list[GoldenResult]:
    """Ask every request of the pages, in order."""
    return [
        GoldenResult(page.name, request, _ask(request, tenant, book, words, capabilities))
        for page in pages
        for request in page.requests
    ]


def _ask(
    golden: GoldenRequest, tenant: TenantConfig, book: Book, words: Words, capabilities: Mapping[str, Capability]
) -> PolicyDecision:
    principal = Principal(
        tenant_id=golden.caller.tenant or tenant.tenant_id,
        subject="golden:caller",
        kind=golden.caller.kind,
        client_app="golden",
        roles=frozenset(golden.caller.roles),
    )
    ask = Ask(principal, tenant, "golden", PlanProvenance(source=golden.planned_by))
    if golden.ask == SUBMIT:
        budget = golden.budget
        facts = PlanFacts({}, budget.steps, budget.depth, budget.fan_out, budget.cost_micro_usd)
        question = submit_question(ask, facts, golden.cures)
        used: list[Capability] = []
        subject = Subject(None, None)
    else:
        capability = capabilities.get(golden.ask)
        if capability is None:
            return _no("policy.capability_unknown", f"{golden.ask} is not in the catalog")
        used, own = [capability], _facts(golden, capability)
        subject = Subject("golden", own)
        try:
            question = step_question(ask, capability, own, golden.inputs, golden.cures, words)
        except NotSayableError as error:
            return _no("policy.input_not_sayable", str(error))
    (answer,) = book.ask([question], entities_of(ask, used, words), words)
    return verdict_of(answer, book.rules, subject)


def _no(code: str, words: str) -> PolicyDecision:
    return PolicyDecision(verdict=Verdict.DENY, code=code, reasons=(words,))


def _facts(golden: GoldenRequest, capability: Capability) -> StepFacts:
    flow = golden.flow
    by_class = {"selector": flow.selectors, "payload": flow.payload, "control": flow.control}
    arguments = []
    for name in golden.inputs:
        kind = capability.parameter_class(name)
        personal = tuple(place for place in flow.personal if place == f"/{name}" or place.startswith(f"/{name}/"))
        label = _label(by_class[kind])
        if kind == "payload" and flow.personal and not personal:
            label = Label(label.integrity, label.confidentiality, False)
        arguments.append(ArgumentFacts(name, kind, label, personal=personal))
    return StepFacts(
        step_id="golden",
        capability=capability.name,
        arguments=tuple(arguments),
        selectors=_label(flow.selectors),
        payload=_label(flow.payload),
        control=_label(flow.control),
        output=Label(0, 3, True),
        external_hosts=frozenset(flow.external_hosts),
        untrusted_hosts=frozenset(flow.untrusted_hosts),
        items_at_most=flow.items_at_most,
    )


def _label(label: GoldenLabel) -> Label:
    return Label(label.integrity, label.confidentiality, label.pii)
