"""Commitments in records: keyed, the same within a run, worthless without the key, and complete."""

from __future__ import annotations

import ast
import hashlib
import hmac
import json
from pathlib import Path

import pytest

from engine.adapters.memory import MemoryAuditLog, MemoryRunKeys
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.errors import LivoaError
from engine.evidence import verify
from engine.evidence.canonical import canonical_sha256
from engine.evidence.commitments import COMMITTED, COMMITTED_WITH, ERASED, KeyedAuditLog
from engine.evidence.on_record import put_on_record
from tests.support.payloads import keyring
from tests.unit.identity.tokens import NOW

ROOT = Path(__file__).resolve().parents[3]
GUESSABLE = hashlib.sha256(b'{"to":"alice@example.com"}').hexdigest()
NO_CONTENT = {
    "anchor_sha256": "a checkpoint, which is public",
    "content_sha256": "what an auditor asked for: a commitment already",
    "facts_hash": "in telemetry and previews of policy, not in records",
    "from_sha256": "a tenant's configuration, whose versions are kept beside the chain",
    "from_version_sha256": "what was in force before: policies and configurations, kept beside the chain",
    "host_sha256": "a host of the platform's own settings; where a redirect led is not kept",
    "nonce_sha256": "a random number",
    "policy_set_hash": "policies, which are the platform's or the tenant's own",
    "schema_hash": "the policies' schema",
    "sha256": "a tenant's configuration, or a prompt file of the platform",
}


def entry(number: int = 1, run_id: str | None = "run-1", **body: object) -> AuditEntry:
    return AuditEntry(
        tenant_id="contoso",
        entry_id=f"{run_id}/{number}/policy.decision/{GUESSABLE[:16]}",
        type=AuditType.POLICY_DECISION,
        at=NOW,
        run_id=run_id,
        actor="tid:ana",
        body=dict(body),
    )


async def test_a_record_holds_a_keyed_hash_and_says_so(tmp_path: Path) -> None:
    ring, inner = keyring(tmp_path), MemoryAuditLog()
    record = await KeyedAuditLog(inner, ring).append(entry(inputs_sha256=GUESSABLE, step="mail"))
    key = await ring.get("contoso", "run-1")
    expected = hmac.new(key.name_key, bytes.fromhex(GUESSABLE), hashlib.sha256).hexdigest()
    assert record.body == {"inputs_sha256": expected, "step": "mail", COMMITTED_WITH: key.key_id}
    assert GUESSABLE[:16] not in json.dumps(record.model_dump(mode="json"))
    assert verify([record], "contoso") == []


async def test_the_same_content_has_one_commitment_in_a_run_and_another_one_elsewhere(tmp_path: Path) -> None:
    log = KeyedAuditLog(MemoryAuditLog(), keyring(tmp_path))
    first = await log.append(entry(1, inputs_sha256=GUESSABLE))
    second = await log.append(entry(2, output_sha256=GUESSABLE))
    other = await log.append(entry(1, "run-2", inputs_sha256=GUESSABLE))
    assert first.body["inputs_sha256"] == second.body["output_sha256"] != other.body["inputs_sha256"]


async def test_a_fact_delivered_twice_is_one_record_whichever_process_delivers_it(tmp_path: Path) -> None:
    keys, inner = MemoryRunKeys(), MemoryAuditLog()
    logs = [KeyedAuditLog(inner, keyring(tmp_path, keys)) for _ in range(2)]
    records = [await log.append(entry(inputs_sha256=GUESSABLE)) for log in logs]
    assert records[0] == records[1]
    assert len(await inner.read("contoso", after_seq=0, limit=9)) == 1


async def test_after_an_erasure_nothing_can_be_tried_out_and_what_still_comes_says_nothing(tmp_path: Path) -> None:
    ring, inner = keyring(tmp_path), MemoryAuditLog()
    log = KeyedAuditLog(inner, ring)
    before = await log.append(entry(1, inputs_sha256=GUESSABLE))
    await ring.destroy("contoso", "run-1")
    late = await log.append(entry(2, inputs_sha256=GUESSABLE))
    assert late.body == {"inputs_sha256": ERASED, COMMITTED_WITH: ERASED}
    text = json.dumps([record.model_dump(mode="json") for record in (before, late)])
    assert GUESSABLE[:16] not in text
    assert verify([before, late], "contoso") == []


async def test_a_fact_that_differs_gets_a_record_of_its_own_whose_id_tells_nothing(tmp_path: Path) -> None:
    log = KeyedAuditLog(MemoryAuditLog(), keyring(tmp_path))
    one, other = (entry(inputs_sha256=GUESSABLE, step=step) for step in ("mail", "sms"))
    assert (await put_on_record(one, log)) == (await put_on_record(one, log))
    beside = await put_on_record(other, log)
    assert beside.body["step"] == "sms"
    assert canonical_sha256(other.body)[:16] not in beside.entry_id
    assert (await put_on_record(other, log)) == beside


@pytest.mark.parametrize("body", [{}, {"step": "mail"}, {"inputs_sha256": ""}, {"plan_hash": "none"}])
async def test_an_entry_without_hashes_needs_no_key(tmp_path: Path, body: dict[str, object]) -> None:
    keys = MemoryRunKeys()
    record = await KeyedAuditLog(MemoryAuditLog(), keyring(tmp_path, keys)).append(entry(**body))
    assert record.body == body
    assert await keys.get("contoso", "run-1") is None


async def test_what_cannot_be_committed_to_is_not_recorded(tmp_path: Path) -> None:
    class Down(MemoryRunKeys):
        async def get(self, tenant_id: str, run_id: str) -> None:
            raise LivoaError("store.unavailable", "down", status=503)

    inner = MemoryAuditLog()
    with pytest.raises(LivoaError, match="down"):
        await KeyedAuditLog(inner, keyring(tmp_path, Down())).append(entry(inputs_sha256=GUESSABLE))
    assert await inner.read("contoso", after_seq=0, limit=9) == ()


def hash_keys(source: str) -> set[str]:
    """Keys of dictionaries in a source that are called hashes."""
    keys = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            keys |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return {key for key in keys if key.endswith(("sha256", "_hash"))}


def test_every_hash_that_is_put_into_a_body_has_been_thought_about() -> None:
    """Read off the sources that write entries, so that a new field counts."""
    sources = [
        path.read_text()
        for folder in ("engine", "triggers", "activities", "planner_graph")
        for path in (ROOT / folder).rglob("*.py")
        if "AuditEntry(" in path.read_text() or path.name == "evidence.py"
    ]
    assert len(sources) > 8
    found = set().union(*map(hash_keys, sources))
    assert found - COMMITTED - NO_CONTENT.keys() == set()
    assert {"inputs_sha256", "plan_hash", "request_sha256"} <= found


def test_what_that_test_looks_for_it_finds() -> None:
    assert hash_keys('{"a_sha256": 1, "b": {"c_hash": 2}, "d": 3}') == {"a_sha256", "c_hash"}
