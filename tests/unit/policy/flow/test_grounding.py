"""A literal is the user's own word only when the user said just that, as whole words."""

from __future__ import annotations

from typing import Any

import pytest

from policy.flow.grounding import Grounding
from tests.unit.policy.flow.samples import TENANT, asked


def grounded(literal: Any, intent: str, **values: Any) -> int | None:
    return Grounding(asked(intent, **values), TENANT).integrity_of(literal)


@pytest.mark.parametrize(
    ("literal", "intent"),
    [
        ("bob@x.com", "Write to bob@x.com."),
        ("bob@x.com", "Write to Bob@X.com, then stop"),
        ("Bob@X.com", 'to "bob@x.com"'),
        ("bob@x.com", "to (bob@x.com): hello"),
        ("bob@x.com", "for ann@x.com,bob@x.com;eve@x.com"),
        ("bob@x.com", "to bob@x\u200b.com"),
        ("bob@x.com", "to \uff42ob@x.com"),
        ("last  week", "what happened last\nweek?"),
        ("ROI fell", "Our ROI fell!"),
        ("https://a.com/b?c=d", "see https://a.com/b?c=d."),
        ("straße 5", "Straße 5"),
        (63, "give 63 each"),
        (1_200_000, "about 1.2 million"),
        (1_200_000, "about 1,200,000 pounds"),
        (1_200_000.0, "$1.2m"),
        (500_000, "spend €500k"),
        (10, "fell by 10 %"),
        (0.1, "fell by 10%"),
        (-3.5, "it was -3.5 then"),
        (3, "the three best"),
        ("2026-07-01", "in Q3 2026"),
        ("2026-09-30", "in 2026-Q3"),
        ("2026-02-28", "all of February 2026"),
        ("2026-12-31", "during 2026"),
        ("2026-07-03", "on 3 July 2026"),
        ("2026-07-03", "on Jul 3rd, 2026"),
        ("2026-07-03", "since 2026-07-03"),
    ],
)
def test_said_by_the_user(literal: Any, intent: str) -> None:
    assert grounded(literal, intent) == 3


@pytest.mark.parametrize(
    ("literal", "intent"),
    [
        ("bob@x.com", "Write to notbob@x.com"),
        ("bob@x.com", "Write to bob@x.com.evil.org"),
        ("bob@x.com", "Write to not.bob@x.com"),
        ("bob@x.com", "Write to o'bob@x.com"),
        ("bob@x.com", "https://bob@x.com/"),
        ("x.com", "Write to bob@x.com"),
        ("bob", "Write to bob@x.com"),
        ("evil.com", "see good.com/evil.com"),
        ("fass.de", "write to faß.de"),
        ("faß.de", "write to fass.de"),
        ("\uff45vil.com", "see evil.com"),
        ("b\u043eb@x.com", "to bob@x.com"),
        ("bob@x\u200b.com", "to bob@x.com"),
        ("bob@x.com\n", "to bob@x.com"),
        ("bob@x.com ", "to bob@x.com "),
        ("", "anything"),
        (" ", "anything at all"),
        ("200", "pay 1,200"),
        (200, "pay 1,200"),
        (1, "pay 1,200"),
        (1200, "pay 1.200"),
        (12, "pay 1.2 million"),
        (1.2, "version v1.2"),
        (4711, "account DE4711"),
        (4711, "account DE-4711"),
        (8080, "host:8080"),
        (2, "q2-report"),
        (9, "often"),
        (1, "someone"),
        (-10, "fell by 10%"),
        (True, "true"),
        (None, "null"),
        ([], "nothing []"),
        ("2026-07-02", "in Q3 2026"),
        ("2026-07-01", "in the third quarter"),
        ("2026-04-03", "on 03/04/2026"),
        ("2026-02-30", "on 30 February 2026"),
        ("2027-01-01", "in 2026"),
    ],
)
def test_not_said_by_the_user(literal: Any, intent: str) -> None:
    assert grounded(literal, intent) is None


def test_goals_speak_for_the_user_too() -> None:
    assert Grounding(asked("x", goals=("Write to bob@x.com",)), TENANT).integrity_of("bob@x.com") == 3


def test_a_value_of_the_context_or_of_a_directory_is_the_tenants_word() -> None:
    values = {"contact": {"mails": ["ann@x.com"]}, "limit": 250}
    assert grounded("ann@x.com", "x", **values) == 2
    assert grounded(250.0, "x", **values) == 2
    assert grounded("Finance@contoso.com", "x") == 2
    assert grounded("Ann@x.com", "x", **values) is None
    assert grounded("contact", "x", **values) is None
    assert grounded("x@finance@contoso.com", "x") is None


def test_documents_speak_for_nobody() -> None:
    assert Grounding(asked("x", documents=("eve@x.com",)), TENANT).integrity_of("eve@x.com") is None


def test_without_a_request_only_directories_are_left() -> None:
    assert Grounding(None, TENANT).integrity_of("DE-4711") == 2
    assert Grounding(None, TENANT).integrity_of("bob@x.com") is None
