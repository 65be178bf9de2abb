"""The outbox has each effect once, keeps tenants apart, and undoes a budget with what it said before."""

from pathlib import Path

import pytest

from agent_kit import CapabilityError
from sample_agents.buyers import FindInputs, find
from sample_agents.outbox import BudgetInputs, MailInputs, Outbox

MAIL = MailInputs.model_validate(
    {"to": ["a@x.example"], "subject": "s", "body": "text", "lines": [{"label": "sales", "value": 12.5}]}
)
SAMPLES = Path(__file__).resolve().parents[3] / "catalog" / "samples"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "deep" / "outbox.db")


def test_a_repeated_step_sends_one_mail_and_answers_the_same(outbox: Outbox) -> None:
    first = outbox.send("contoso", "run/tell", MAIL)
    assert outbox.send("contoso", "run/tell", MAIL) == first
    (mail,) = outbox.mails("contoso")
    assert (mail.message_id, mail.recipients, mail.text) == (first["message_id"], ("a@x.example",), "text\nsales: 12.5")


def test_one_tenants_mails_are_not_another_tenants(outbox: Outbox) -> None:
    ids = {outbox.send(tenant, "run/tell", MAIL)["message_id"] for tenant in ("contoso", "fabrikam")}
    assert len(ids) == 2
    assert [len(outbox.mails(tenant)) for tenant in ("contoso", "fabrikam", "nobody")] == [1, 1, 0]


def test_a_budget_says_what_it_was_and_a_repetition_changes_nothing(outbox: Outbox) -> None:
    first = outbox.set_budget("contoso", "run/1", BudgetInputs(channel="tv", weekly_amount=100))
    assert "previous_weekly_amount" not in first
    second = outbox.set_budget("contoso", "run/2", BudgetInputs(channel="tv", weekly_amount=200))
    assert second["previous_weekly_amount"] == 100
    assert outbox.set_budget("contoso", "run/1", BudgetInputs(channel="tv", weekly_amount=100)) == first
    assert outbox.budgets("contoso") == {"tv": 200}


def test_what_was_kept_is_there_after_a_restart(outbox: Outbox, tmp_path: Path) -> None:
    outbox.send("contoso", "run/tell", MAIL)
    assert len(Outbox(tmp_path / "deep" / "outbox.db").mails("contoso")) == 1


def test_buyers_come_best_first_and_only_from_the_segment() -> None:
    found = find(SAMPLES / "contoso", FindInputs(segment="top", limit=3))["buyers"]
    assert [buyer["sales"] for buyer in found] == sorted((buyer["sales"] for buyer in found), reverse=True)
    assert len(found) == 3
    assert all(buyer["email"].endswith("@customer.example") for buyer in found), "nobody real is in the samples"


def test_a_tenant_without_records_is_told_so() -> None:
    with pytest.raises(CapabilityError) as refused:
        find(SAMPLES / "fabrikam", FindInputs(segment="top"))
    assert refused.value.error.code == "crm.no_buyers"
