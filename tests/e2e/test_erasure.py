"""A run that is erased: over the real host, its content is gone from disk, its evidence is not."""

from __future__ import annotations

import json

import pytest

from engine.domain.audit import AuditRecord
from engine.domain.principal import Role
from engine.evidence import verify
from tests.e2e.client import Client
from tests.e2e.plans import request_of, search
from tests.e2e.stack import Stack, rows


@pytest.fixture(scope="module")
def erased(stack: Stack) -> str:
    contoso = stack.client()
    run_id = contoso.submit(request_of(search("a", query="what to forget"), uses=["a"]))
    ended = contoso.finished(run_id)
    assert ended["status"] == "succeeded", (ended["error"], contoso.steps(run_id))
    assert list((stack.data / "payloads" / "contoso" / run_id).iterdir())
    eraser = Client(stack.url, lambda: stack.tokens.mint("contoso", roles=(Role.RUNS_ERASE,)))
    answer = eraser.send("DELETE", f"/api/runs/{run_id}")
    assert answer.status == 200, answer.body
    assert answer.json["objects"] > 2
    again = eraser.send("DELETE", f"/api/runs/{run_id}")
    assert (again.status, again.json["objects"]) == (200, 0)
    return run_id


def test_nothing_of_it_is_left_but_the_record_of_its_key(stack: Stack, erased: str) -> None:
    assert not (stack.data / "payloads" / "contoso" / erased).exists()
    database = stack.data / "livoa.db"
    for table in ("runs", "steps", "events", "claims", "model_results", "approvals", "budgets", "reservations"):
        assert rows(database, f"SELECT count(*) FROM {table} WHERE run_id = ?", erased)[0][0] == 0
    assert rows(database, "SELECT wrapped FROM run_keys WHERE run_id = ?", erased) == [(None,)]
    durable = stack.data / "host" / "durable.sqlite"
    assert rows(durable, "SELECT count(*) FROM instances WHERE instance_id LIKE ?", f"{erased}%")[0][0] == 0


def test_the_run_says_that_it_is_gone_and_auditors_still_see_its_records(stack: Stack, erased: str) -> None:
    reader = Client(stack.url, lambda: stack.tokens.mint("contoso"))
    assert reader.get(f"/api/runs/{erased}").status == 410
    auditor = Client(stack.url, lambda: stack.tokens.mint("contoso", roles=(Role.AUDIT_READ,)))
    records = auditor.get(f"/api/runs/{erased}/audit").json["records"]
    kinds = [record["type"] for record in records]
    assert kinds[0] == "run.submitted"
    assert "audit.erase" in kinds
    committed = records[0]["body"]["request_sha256"]
    content = auditor.get(f"/api/runs/{erased}/audit/content/{committed}")
    assert content.status == 410


def test_the_chain_is_as_sound_as_before(stack: Stack, erased: str) -> None:
    query = "SELECT document FROM audit_records WHERE tenant_id = 'contoso' ORDER BY seq"
    records = [AuditRecord.model_validate(json.loads(text)) for (text,) in rows(stack.data / "livoa.db", query)]
    assert any(record.run_id == erased for record in records)
    assert verify(records, "contoso") == []
