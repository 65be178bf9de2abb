"""Over random requests and random policies: nobody's policy opens what the platform closes, and nobody's reaches another tenant.

200 cases every day; 10,000 under ``./livoa test --thorough``.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.policy import Cures
from engine.domain.principal import Role
from engine.domain.run import PlanProvenance
from engine.domain.tenant import TenantConfig
from policy.admission import admit
from policy.book import Book
from policy.cedar import CedarAnswer, CedarRequest, Entities, policies_of
from policy.facts import ArgumentFacts, Label, StepFacts
from policy.lint import lint
from policy.questions import Ask, entities_of, step_question
from policy.rules import Layer, Rule, rule_of
from tests.unit.policy.conftest import CATALOG, WORDS, person, shipped, tenant

PLATFORM = admit(shipped("platform"), Layer("platform"), WORDS.document, WORDS.agents).rules
CONTOSO = admit(shipped("tenants/contoso"), Layer("tenant", "contoso"), WORDS.document, WORDS.agents).rules
PLATFORM_BOOK = Book.of(PLATFORM)
CONTOSO_BOOK = Book.of((*PLATFORM, *CONTOSO))
INPUTS: dict[str, dict[str, Any]] = {
    "mail.send": {"to": ["finance@contoso.example"], "subject": "s", "body": "b"},
    "ads.set_budget": {"channel": "tv", "weekly_amount": 30_000},
    "rag.search": {"query": "budget"},
    "rates.lookup": {"base": "GBP", "quote": "EUR", "date": "2026-09-30"},
}
HOSTS = st.frozensets(st.sampled_from(["mail-relay.example", "127.0.0.1", "evil.example"]), max_size=3)
LABELS = st.builds(Label, st.integers(0, 3), st.integers(0, 3), st.booleans())
CONDITIONS = st.sampled_from(
    [
        "",
        "when { true }",
        "when { context.flow.selectors.integrity < 2 }",
        "when { context.flow.selectors.integrity >= 0 }",
        "when { context.input has to }",
        "unless { context.cures.approved }",
        "when { context.call.costMicroUsd + 9223372036854775807 > 0 }",
        'when { context.tenant.getTag("recipients").contains("x") }',
        'when { principal.kind == "user" } unless { context.flow.payload.pii }',
        "when { context.call.itemsAtMost * 9223372036854775807 > 1 }",
        'when { resource.name == "outbox" }',
    ]
)
SCOPES = st.sampled_from(
    [
        "action",
        'action in Livoa::Action::"call"',
        'action in Livoa::Action::"sideEffect"',
        'action == Livoa::Action::"mail.send"',
        'action in [Livoa::Action::"read", Livoa::Action::"external"]',
    ]
)
PRINCIPALS = st.sampled_from(
    [
        "principal",
        'principal in Livoa::Tenant::"contoso"',
        'principal in Livoa::Tenant::"fabrikam"',
        "principal is Livoa::User",
    ]
)


@st.composite
def added_policies(draw: st.DrawFn, prefix: str) -> tuple[Rule, ...]:
    """Policies as they parse, admitted or not: what is shown here must hold even for those that the linter would refuse."""
    texts = []
    for number in range(draw(st.integers(1, 3))):
        effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
        scope = f"({draw(PRINCIPALS)}, {draw(SCOPES)}, resource)"
        texts.append(f'@id("{prefix}{number}") {effect} {scope} {draw(CONDITIONS)};')
    return tuple(rule_of(est) for est in policies_of("\n".join(texts)))


@st.composite
def questions(draw: st.DrawFn, home: TenantConfig) -> tuple[CedarRequest, Entities]:
    name = draw(st.sampled_from(sorted(INPUTS)))
    capability = CATALOG.capabilities[name]
    selectors, payload, control = draw(LABELS), draw(LABELS), draw(LABELS)
    by_class = {"selector": selectors, "payload": payload, "control": control}
    arguments = tuple(
        ArgumentFacts(one, capability.parameter_class(one), by_class[capability.parameter_class(one)])
        for one in INPUTS[name]
    )
    facts = StepFacts(
        "s", name, arguments, selectors, payload, control, Label(0, 0, False),
        external_hosts=draw(HOSTS), untrusted_hosts=draw(HOSTS), items_at_most=draw(st.integers(0, 3)),
    )  # fmt: skip
    principal = person(
        draw(st.sampled_from([home.tenant_id, home.tenant_id, "fabrikam", "contoso"])),
        kind=draw(st.sampled_from(["user", "app"])),
        roles=draw(st.frozensets(st.sampled_from([Role.RUNS_SUBMIT, Role.RUNS_READ]), max_size=2)),
    )
    cures = Cures(
        approved=draw(st.booleans()),
        approver_differs=draw(st.booleans()),
        redacted=draw(st.sampled_from([(), ("/body",), ("/subject", "/body")])),
    )
    ask = Ask(principal, home, "run", PlanProvenance(source=draw(st.sampled_from(["caller", "model"]))))
    return (
        step_question(ask, capability, facts, INPUTS[name], cures, WORDS),
        entities_of(ask, [capability], WORDS),
    )


def answer(book: Book, asked: tuple[CedarRequest, Entities]) -> CedarAnswer:
    (found,) = book.ask([asked[0]], asked[1], WORDS)
    return found


def never_opens(asked: tuple[CedarRequest, Entities], added: tuple[Rule, ...]) -> None:
    closed = answer(PLATFORM_BOOK, asked).code != "policy.no_permit"
    if closed:
        assert answer(Book.of((*PLATFORM, *CONTOSO, *added)), asked).outcome == "deny"


def never_reaches(asked: tuple[CedarRequest, Entities], added: tuple[Rule, ...]) -> None:
    """Fabrikam's policies beside Contoso's own, even if one file had been mixed up with the other."""
    before = answer(CONTOSO_BOOK, asked)
    written = [rule for rule in added if not lint_faults(rule)]
    after = answer(Book.of((*PLATFORM, *CONTOSO, *written)), asked)
    if asked[0].principal.id and before.code != "policy.error" and after.code != "policy.error":
        assert (before.outcome == "allow") >= (after.outcome == "allow")


def lint_faults(rule: Rule) -> list[Any]:
    from policy.lint import Written

    return lint([Written("f", 1, rule.est)], Layer("tenant", "fabrikam"), WORDS.agents, WORDS.document)


EVERY_DAY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
THOROUGH = settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CONTOSO_ASKS = questions(tenant())


@EVERY_DAY
@given(CONTOSO_ASKS, added_policies("t/contoso/added-"))
def test_adding_a_tenants_policy_never_opens_what_the_platform_closes(asked: Any, added: Any) -> None:
    never_opens(asked, added)


@EVERY_DAY
@given(CONTOSO_ASKS, added_policies("t/fabrikam/added-"))
def test_a_foreign_tenants_permits_never_allow_more_here(asked: Any, added: Any) -> None:
    never_reaches(asked, added)


@pytest.mark.thorough
@pytest.mark.timeout(1_800)
@THOROUGH
@given(CONTOSO_ASKS, added_policies("t/contoso/added-"))
def test_adding_a_policy_never_opens_in_ten_thousand_cases(asked: Any, added: Any) -> None:
    never_opens(asked, added)


@pytest.mark.thorough
@pytest.mark.timeout(1_800)
@THOROUGH
@given(CONTOSO_ASKS, added_policies("t/fabrikam/added-"))
def test_foreign_permits_never_allow_more_in_ten_thousand_cases(asked: Any, added: Any) -> None:
    never_reaches(asked, added)


@EVERY_DAY
@given(CONTOSO_ASKS)
def test_narrowing_to_an_action_changes_no_answer(asked: Any) -> None:
    """What the engine leaves out of a question could not have taken part in its answer."""
    from policy.cedar import PolicySet, decide

    everything = PolicySet({rule.id: rule.est for rule in CONTOSO_BOOK.rules.values()})
    (whole,) = decide([asked[0]], everything, asked[1], WORDS.schema)
    assert answer(CONTOSO_BOOK, asked) == whole


@EVERY_DAY
@given(CONTOSO_ASKS, added_policies("t/contoso/added-"))
def test_an_early_answer_is_the_answer(asked: Any, added: Any) -> None:
    """Not holding a well-formed question against the schema changes nothing: every question of the engine is well-formed."""
    book = Book.of((*PLATFORM, *CONTOSO, *added))
    assert book.ask([asked[0]], asked[1], WORDS, checked=False) == book.ask([asked[0]], asked[1], WORDS)


@EVERY_DAY
@given(CONTOSO_ASKS)
def test_an_approval_never_turns_an_allow_into_anything_else(asked: Any) -> None:
    request, entities = asked
    before = answer(CONTOSO_BOOK, asked)
    cured = {**request.context, "cures": request.context["cures"] | {"approved": True, "approverDiffers": True}}
    after = answer(
        CONTOSO_BOOK,
        (CedarRequest(request.principal, request.action, request.resource, cured, request.needs), entities),
    )
    if before.outcome == "allow":
        assert after.outcome == "allow"
    assert not {rule for rule in after.ids if PLATFORM_BOOK.rules.get(rule)} - set(before.ids)
