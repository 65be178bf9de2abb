"""What may not become a policy: each kind of fault has its code, its file and its line, and one fault keeps a layer out."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from engine.ports.policy import PolicyText
from policy.admission import Admitted, admit, admit_in_child
from policy.cedar import policies_of
from policy.rules import Layer, context_reads, rule_of
from tests.unit.policy.conftest import CATALOG, WORDS, shipped

CONTOSO = Layer("tenant", "contoso")
IN_TENANT = 'principal in Livoa::Tenant::"contoso"'
MAIL = 'action == Livoa::Action::"mail.send"'


def admitted(text: str, layer: Layer = CONTOSO, door: Any = admit) -> Admitted:
    found: Admitted = door([PolicyText("draft.cedar", text)], layer, WORDS.document, WORDS.agents)
    return found


def codes(text: str, layer: Layer = CONTOSO) -> list[str]:
    return [found.code for found in admitted(text, layer).findings]


def forbid(body: str = "", notes: str = '@id("t/contoso/x")', action: str = MAIL) -> str:
    return f"{notes}\nforbid (principal, {action}, resource) {body};"


@pytest.mark.parametrize("folder", ["platform", "default", "tenants/contoso", "tenants/fabrikam"])
def test_what_is_shipped_is_admitted(folder: str) -> None:
    kind, _, name = folder.partition("/")
    layer = Layer("tenant", name) if name else Layer(kind)  # type: ignore[arg-type]  # one of the two others
    found = admit(shipped(folder), layer, WORDS.document, WORDS.agents)
    assert found.findings == ()
    assert found.rules
    assert all(rule.message or not rule.forbids for rule in found.rules), "people read why"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("policy.id_missing", forbid(notes="")),
        ("policy.id_invalid", forbid(notes='@id("t/contoso/X")')),
        ("policy.id_foreign", forbid(notes='@id("t/fabrikam/x")')),
        ("policy.id_foreign", forbid(notes='@id("plat.taint-selector")')),
        ("policy.id_foreign", forbid(notes='@id("t/contoso/")')),
        ("policy.id_repeated", forbid() + forbid()),
        ("policy.annotation_unknown", forbid(notes='@id("t/contoso/x") @severty("hard")')),
        ("policy.severity_unknown", forbid(notes='@id("t/contoso/x") @severity("soft")')),
        ("policy.about_unknown", forbid(notes='@id("t/contoso/x") @about("weather")')),
        ("policy.message_invalid", forbid(notes='@id("t/contoso/x") @message("' + "x" * 301 + '")')),
        ("policy.cure_without_curable", forbid(notes='@id("t/contoso/x") @cure("redaction")')),
        ("policy.cure_unknown", forbid(notes='@id("t/contoso/x") @severity("curable") @cure("prayer")')),
        ("policy.cure_without_effect", forbid(notes='@id("t/contoso/x") @severity("curable") @cure("redaction")')),
        (
            "policy.cure_of_permit",
            f'@id("t/contoso/x") @severity("curable") @cure("approval:four-eyes") permit ({IN_TENANT}, {MAIL}, resource) '
            "when { context.cures.approved };",
        ),
        ("policy.permit_too_wide", '@id("t/contoso/x") permit (principal, action, resource);'),
        ("policy.permit_too_wide", '@id("t/contoso/x") permit (principal is Livoa::User, action, resource);'),
        (
            "policy.tenant_foreign",
            '@id("t/contoso/x") permit (principal in Livoa::Tenant::"fabrikam", action, resource);',
        ),
        ("policy.tenant_foreign", forbid('when { context.tenant == Livoa::Tenant::"fabrikam" }')),
        ("policy.role_unknown", forbid('when { principal in Livoa::Role::"Runs.Submt" }')),
        ("policy.agent_unknown", forbid('when { resource == Livoa::Agent::"outbx--any" }')),
        ("policy.entity_look_alike", forbid('when { principal in Livoa::Role::"\\u{420}uns.Submit" }')),
        ("policy.text_look_alike", forbid('when { principal.app == "\\u{430}cme" }')),
        ("policy.word_unknown", forbid("when { context.input has too }")),
        ("policy.word_unknown", forbid("when { context has budgit }")),
        ("policy.word_unknown", forbid("when { context.flow has selector }")),
        ("policy.word_unknown", forbid("when { context.input has weekly_amount }")),
        ("policy.schema_mismatch", forbid("when { context.input.to.contains(\"a\") }")),
        ("policy.schema_mismatch", forbid("when { context.flow.selectors.integrty < 2 }")),
        ("policy.schema_mismatch", forbid("when { context.input has subject && context.input.subject > 3 }")),
        ("policy.schema_mismatch", forbid(action='action == Livoa::Action::"mail.sned"')),
        ("policy.syntax", "forbid (principal, action, resource"),
        ("policy.template", '@id("t/contoso/x") forbid (principal == ?principal, action, resource);'),
        ("policy.too_deep", forbid("when { " + "(" * 60 + "true" + ")" * 60 + " }")),
        ("policy.not_ascii", forbid('when { principal.app == "\u0430cme" }')),
    ],
)  # fmt: skip
def test_each_fault_has_its_code(code: str, text: str) -> None:
    found = admitted(text)
    assert code in [one.code for one in found.findings]
    assert found.rules == (), "one fault keeps the whole layer out"
    assert all(one.pointer.startswith("draft.cedar#L") for one in found.findings)


def test_the_platform_only_forbids() -> None:
    assert codes('@id("plat.x") permit (principal, action, resource);', Layer("platform")) == [
        "policy.permit_by_platform"
    ]


def test_a_layer_has_at_most_two_hundred_policies() -> None:
    text = "\n".join(forbid(notes=f'@id("t/contoso/p{n}")') for n in range(201))
    assert codes(text) == ["policy.too_many"]


def test_a_layer_has_at_most_two_hundred_kibibytes() -> None:
    one = forbid(body="when { [" + ", ".join(f'"{n:09d}"' for n in range(600)) + "].contains(principal.app) }")
    files = [PolicyText(f"f{n}.cedar", one.replace("/x", f"/p{n}")) for n in range(30)]
    found = admit(files, CONTOSO, WORDS.document, WORDS.agents)
    assert [fault.code for fault in found.findings] == ["policy.too_large"]


def test_faults_name_the_line_of_their_policy() -> None:
    text = forbid() + "\n\n// a comment; with a semicolon\n" + forbid(notes='@id("plat.y")')
    assert [found.pointer for found in admitted(text).findings] == ["draft.cedar#L5"]


def test_the_child_says_what_this_process_would() -> None:
    good, bad = forbid("unless { context.cures.approved }"), forbid("when { context.input has too }")
    assert admitted(good, door=admit_in_child) == admitted(good)
    assert admitted(bad, door=admit_in_child) == admitted(bad)


def test_a_child_that_dies_is_a_refusal_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the guard the parser would end the child: the second line of defence by itself."""
    bomb = forbid("when { " + "(" * 2_000 + "true" + ")" * 2_000 + " }")
    assert codes(bomb) == ["policy.too_deep"], "the first line of defence"
    monkeypatch.setattr("policy.admission._bounds", lambda files: [])
    unguarded = (
        "import json,sys; sys.path[:]=json.loads(sys.argv[1]); import policy.cedar, policy.admission; "
        "policy.cedar.guard_text = policy.admission.guard_text = lambda text: None; "
        "from policy.admission_child import main; main()"
    )
    monkeypatch.setattr("policy.admission._CHILD", unguarded)
    assert [found.code for found in admitted(bomb, door=admit_in_child).findings] == ["policy.admission_failed"]


def test_a_child_that_takes_too_long_or_talks_nonsense_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in ("import time; time.sleep(60)", "print('[1, 2')", "print('[]')", "import sys; sys.exit(3)"):
        monkeypatch.setattr("policy.admission._CHILD", code)
        monkeypatch.setattr("policy.admission.CHILD_TIMEOUT_S", 2.0)
        assert [found.code for found in admitted(forbid(), door=admit_in_child).findings] == ["policy.admission_failed"]


def test_the_child_hears_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    real = subprocess.run

    def spy(command: list[str], **options: Any) -> Any:
        seen["command"] = command
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", spy)
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    admitted(forbid(), door=admit_in_child)
    assert seen["command"][:2] == [sys.executable, "-I"]
    assert forbid() not in " ".join(seen["command"]), "the text goes to standard input"


def test_a_rule_knows_which_arguments_it_looks_at() -> None:
    def inputs(body: str) -> Any:
        return rule_of(policies_of(forbid(body))[0]).inputs

    assert inputs("when { context.flow.selectors.integrity < 2 }") == frozenset()
    assert inputs('when { context.input has to && context.input.subject == "x" }') == {"to", "subject"}
    assert inputs("when { context.input has details.name }") == {"details"}
    assert inputs("when { context.input == context.input }") is None
    assert inputs("when { context == context }") is None
    assert inputs('when { {"a": context}.a.input has to }') is None, "what cannot be followed may be anything"


def test_ways_into_the_context_are_found_wherever_they_stand() -> None:
    est = policies_of(forbid('when { if context.cures.approved then true else [context.call.purpose].contains("x") }'))[
        0
    ]
    assert context_reads(est) == {("cures", "approved"), ("call", "purpose")}


def test_every_shipped_parameter_is_classified() -> None:
    """Nested parts have the class of their parameter; a parameter without a class would count as a selector."""
    for manifest in CATALOG.capabilities.values():
        assert set(manifest.parameters) == set(manifest.input_schema["properties"]), manifest.name
        if manifest.side_effect in ("write", "external"):
            selectors = [name for name in manifest.parameters if manifest.parameter_class(name) == "selector"]
            assert selectors, f"{manifest.name} has an effect, so something chooses its target"
