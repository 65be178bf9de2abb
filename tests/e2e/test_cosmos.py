"""A governed run whose state is in Cosmos DB: the same stack, the same answers, and a service that has a bad day now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from engine.adapters.cosmos import CosmosConnection, CosmosSettings
from engine.domain.audit import AuditRecord
from engine.domain.principal import Role
from engine.evidence import verify
from tests.e2e.plans import SAMPLE_INTENT
from tests.e2e.stack import Stack, up
from tests.support.cosmos_fake import Account, CosmosFake, Fault, cut_within
from tests.support.world import QuietTelemetry

AUDITOR = (Role.AUDIT_READ,)


@pytest.fixture(scope="module")
def fake() -> Iterator[CosmosFake]:
    cuts = [cut_within(("/tenantId", "/runId"), "contoso")]
    with CosmosFake(Account(time.time, cuts=cuts, page=20)) as running:

        async def create() -> None:
            connection = CosmosConnection(CosmosSettings(running.url, key=running.KEY), QuietTelemetry())
            await connection.create_containers()
            await connection.close()

        asyncio.run(create())
        yield running


@pytest.fixture(scope="module")
def stack(fake: CosmosFake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"LIVOA_STORE": "cosmos", "LIVOA_COSMOS_ENDPOINT": fake.url, "LIVOA_COSMOS_KEY": fake.KEY}
    with up(tmp_path_factory.mktemp("cosmos"), settings=settings) as running:
        yield running


def test_a_run_is_planned_vetted_done_and_on_record_in_cosmos(stack: Stack, fake: CosmosFake) -> None:
    client = stack.client()
    for number in range(12):
        kind = ("lost_answer", "throttled", "retry_with", "lost_connection")[number % 4]
        fake.faults.add(Fault(kind, "batch", skip=4 * number))  # type: ignore[arg-type]  # one of the kinds, from a tuple
    first = client.post("/api/runs", {"intent": SAMPLE_INTENT}, Idempotency_Key="one")
    assert first.status == 202
    run_id = str(first.json["run_id"])
    again = client.post("/api/runs", {"intent": SAMPLE_INTENT}, Idempotency_Key="one")
    assert again.json["run_id"] == run_id
    events = client.events(run_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("run.accepted", "run.succeeded")
    run = client.run(run_id)
    assert run["status"] == "succeeded"
    assert run["answer"]
    assert {step["status"] for step in client.steps(run_id).values()} == {"succeeded"}
    assert len(fake.faults.struck) == 12, "the bad moments came within the run"
    assert not (stack.data / "livoa.db").exists(), "nothing is kept in SQL"


def test_its_audit_chain_holds_and_its_calls_were_made_once(stack: Stack, fake: CosmosFake) -> None:
    documents = fake.account.container("livoa", "audit").documents.values()
    texts = [d["document"] for d in documents if d["kind"] == "record" and d["tenantId"] == "contoso"]
    records = sorted(map(AuditRecord.model_validate_json, texts), key=lambda record: record.seq)
    assert len(records) > 10
    assert verify(records, "contoso") == []
    intended = [r.entry_id for r in records if r.type.value == "dispatch.intended"]
    assert len(intended) == len(set(intended)) == len(stack.executions())


def test_another_tenant_sees_none_of_it(stack: Stack) -> None:
    theirs, ours = stack.client("fabrikam", "bo"), stack.client()
    runs = ours.get("/api/runs").json["runs"]
    assert len(runs) == 1
    assert theirs.get("/api/runs").json["runs"] == []
    assert theirs.get(f"/api/runs/{runs[0]['run_id']}").status == 404
