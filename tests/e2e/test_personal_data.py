"""A tenant that has its outgoing texts looked through: masked where the detector is installed, refused where it is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.adapters.presidio import installed
from tests.e2e.client import Client
from tests.e2e.stack import ROOT, Stack, rows, up
from tests.e2e.test_governance import records, sample

PHONE, CARD = "905-674-3793", "4969 8000 2473 4372"
BODY = f"Please call {PHONE} about card {CARD}, thank you."


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose tenant contoso asks for it."""
    folder = tmp_path_factory.mktemp("watched")
    shutil.copytree(ROOT / "catalog", folder / "catalog")
    page: Path = folder / "catalog" / "tenants" / "contoso.yaml"
    page.write_text(page.read_text(encoding="utf-8") + "personal_data: {detect: outgoing}\n", encoding="utf-8")
    with up(folder / "data", settings={"LIVOA_CATALOG": str(folder / "catalog")}) as running:
        yield running


def mailed(client: Client) -> str:
    request = sample("mail_report")
    request["plan"]["steps"][1]["inputs"]["body"] = BODY
    return client.submit(request)


def outbox(stack: Stack) -> list[str]:
    database = stack.data / "agents" / "outbox.db"
    return [text for (text,) in rows(database, "SELECT text FROM mails")] if database.exists() else []


@pytest.mark.skipif(not installed(), reason="requirements-pii.txt is not installed")
def test_what_is_found_is_masked_before_it_leaves_and_on_record_by_its_place(watched: Stack) -> None:
    client = watched.client("contoso")
    run_id = mailed(client)
    assert client.finished(run_id, patience_s=110)["status"] == "succeeded"
    (text,) = outbox(watched)
    assert "Please call [redacted: PHONE_NUMBER] about card [redacted: CREDIT_CARD], thank you." in text
    said = records(watched, run_id)
    (intent,) = [one for one in said if one["type"] == "dispatch.intended" and "tell" in one["entry_id"]]
    assert intent["body"]["decision"]["masked"] == ["/body"]
    (verdict,) = [one for one in said if one["body"].get("verdict") == "transform"]
    assert "tenant.personal-data" in verdict["body"]["policies"]
    assert PHONE not in json.dumps(said)


@pytest.mark.skipif(installed(), reason="requirements-pii.txt is installed")
def test_without_a_detector_nothing_leaves_and_the_run_says_why(watched: Stack) -> None:
    client = watched.client("contoso")
    run_id = mailed(client)
    run = client.finished(run_id, patience_s=40)
    assert (run["status"], run["error"]["code"]) == ("denied", "policy.detector_missing")
    assert "CREDIT_CARD" in run["error"]["message"]
    assert outbox(watched) == []
    inside = client.submit(sample("mail_report") | {"plan": _without_mail()})
    assert client.finished(inside, patience_s=40)["status"] == "succeeded", "what stays inside is none of its business"


def _without_mail() -> dict[str, object]:
    plan = sample("mail_report")["plan"]
    return plan | {"steps": plan["steps"][:1], "answer": {"uses": ["brief"]}}
