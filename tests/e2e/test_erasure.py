"""A run that is erased: over the real host, its content is gone from disk, its evidence is not."""

from __future__ import annotations

import json
import time

import pytest

from engine.domain.audit import AuditRecord
from engine.domain.principal import Role
from engine.evidence import verify
from tests.e2e.client import Answer, Client
from tests.e2e.plans import request_of, search
from tests.e2e.stack import Stack, rows


def erase(stack: Stack, run_id: str) -> Answer:
    """Erase a run, as soon as the durable engine is done with it."""
    eraser = Client(stack.url, lambda: stack.tokens.mint("contoso", roles=(Role.RUNS_ERASE,)))
    until = time.monotonic() + 60
    while (answer := eraser.send("DELETE", f"/api/runs/{run_id}")).status == 409 and time.monotonic() < until:
        assert answer.json["code"] == "run.winding_up"
        time.sleep(0.2)
    return answer


@pytest.fixture(scope="module")
def erased(stack: Stack) -> str:
    contoso = stack.client()
    run_id = contoso.submit(request_of(search("a", query="what to forget"), uses=["a"]))
    ended = contoso.finished(run_id)
    assert ended["status"] == "succeeded", (ended["error"], contoso.steps(run_id))
    assert list((stack.data / "payloads" / "contoso" / run_id).iterdir())
    answer = erase(stack, run_id)
    assert answer.status == 200, answer.body
    assert answer.json["objects"] > 2
    again = erase(stack, run_id)
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


def test_a_link_opens_an_output_over_the_wire_until_its_run_is_erased(stack: Stack) -> None:
    contoso = stack.client()
    run_id = contoso.submit(request_of(search("a", query="what to share"), uses=["a"]))
    assert contoso.finished(run_id)["status"] == "succeeded"
    made = contoso.post(f"/api/runs/{run_id}/links", {"step_id": "a", "valid_s": 600})
    assert made.status == 201, made.body
    target = made.json["url"].removeprefix(stack.url)
    stranger = Client(stack.url, None)
    opened = stranger.get(target)
    assert (opened.status, opened.json) == (200, contoso.output(run_id, "a"))
    assert stranger.get(target[:-1] + ("A" if target[-1] != "A" else "B")).status == 404
    assert erase(stack, run_id).status == 200
    assert stranger.get(target).status == 404
    token = target.rpartition("/")[2].encode()
    logs = [path for path in stack.data.rglob("*") if path.is_file() and token in path.read_bytes()]
    assert logs == [], "a link is a secret"
