"""What every store promises about runs on their way out: the right ones, in order, and nothing of them left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import inspect, text

from engine.adapters.sql.ended_runs import tables_of_a_run
from engine.domain.errors import ConflictError, NotFoundError
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.run import Run
from engine.domain.status import RunStatus, StepStatus
from engine.ports.ended_runs import Stage
from engine.ports.model_results import ModelCallKey, ModelResultRecord
from engine.ports.models import ModelUsage
from engine.ports.result_cache import CachedResult
from engine.ports.run_keys import RunKey
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import approval, assignment, claim, entry, event, ref, run, step
from tests.contract.stores.conftest import CosmosWorld, Stores

DAY = timedelta(days=1)
RESULT = ModelCallKey("contoso", "run-1", 1, "plan", "a" * 64)


async def finished(stores: Stores, run_id: str = "run-1", tenant_id: str = "contoso") -> Run:
    """A run with something of everything, that is over."""
    made = run(run_id, tenant_id, status=RunStatus.RUNNING, created_at=stores.clock.now())
    await stores.runs.create(made, [event(f"first/{run_id}")], claim(f"key-{run_id}"))
    await stores.runs.put_step(step("spend", run_id, tenant_id, status=StepStatus.SUCCEEDED), [event(f"step/{run_id}")])
    for item in range(3):
        await stores.runs.put_step(step("each", run_id, tenant_id, item=item), [])
    if tenant_id == "contoso":
        await stores.approvals.request(approval(stores.clock.now(), run_id=run_id))
    await stores.budgets.open(tenant_id, run_id, limit_micro_usd=10)
    await stores.budgets.reserve(tenant_id, run_id, f"{run_id}/spend", amount_micro_usd=5)
    key = ModelCallKey(tenant_id, run_id, 1, "plan", "a" * 64)
    await stores.model_results.begin(key)
    usage = ModelUsage(1, 1)
    await stores.model_results.put(key, ModelResultRecord(1, "d", "m", "stop", usage, 1, 0.1, output=ref()))
    await stores.assignments.assign(assignment(f"{run_id}/spend", run_id=run_id, tenant_id=tenant_id))
    await stores.result_cache.put(tenant_id, "b" * 64, CachedResult(run_id, ref(), stores.clock.now()))
    await stores.run_keys.create(RunKey(tenant_id, run_id, "a" * 32, None, stores.clock.now()))
    await stores.audit.append(entry(f"{run_id}/run.finished", tenant_id, run_id=run_id))
    change = RunChange(status=RunStatus.SUCCEEDED, finished_at=stores.clock.now())
    return await stores.runs.change(tenant_id, run_id, change, [new_event(EventType.RUN_SUCCEEDED, RunEventData())])


async def due(stores: Stores, stage: Stage = Stage.CONTENT_GONE, limit: int = 10) -> list[str]:
    before = stores.clock.now() - DAY
    found = await stores.ended_runs.ended("contoso", before=before, stage=stage, limit=limit)
    return [each.run_id for each in found]


async def test_runs_are_due_when_they_have_not_changed_for_long_and_are_over(stores: Stores) -> None:
    for run_id in ("old", "older"):
        await finished(stores, run_id)
        stores.clock.advance(60)
    await finished(stores, "theirs", "fabrikam")
    await stores.runs.create(run("going-on", status=RunStatus.RUNNING), [], None)
    stores.clock.advance(3_600)
    assert await due(stores) == []
    stores.clock.advance(86_400)
    await finished(stores, "young")
    assert await due(stores) == ["old", "older"]
    assert len(await due(stores, limit=1)) == 1


async def test_a_run_that_has_come_as_far_is_not_due_again(stores: Stores) -> None:
    await finished(stores)
    stores.clock.advance(2 * 86_400)
    for stage in (Stage.INSTANCES_GONE, Stage.CONTENT_GONE):
        assert await due(stores, stage) == ["run-1"]
    await stores.ended_runs.mark("contoso", "run-1", Stage.INSTANCES_GONE)
    assert await due(stores, Stage.INSTANCES_GONE) == []
    assert await due(stores, Stage.CONTENT_GONE) == ["run-1"]
    await stores.ended_runs.mark("contoso", "run-1", Stage.CONTENT_GONE)
    await stores.ended_runs.mark("contoso", "nobody", Stage.CONTENT_GONE)
    assert await due(stores, Stage.CONTENT_GONE) == []
    found = await stores.runs.get("contoso", "run-1")
    assert found is not None
    assert found.version == 2, "a mark is no change"


async def test_nothing_of_a_removed_run_is_left_but_its_evidence_and_the_record_of_its_key(stores: Stores) -> None:
    await finished(stores)
    await finished(stores, "run-2")
    assert await stores.ended_runs.remove("contoso", "run-1")
    assert await stores.runs.get("contoso", "run-1") is None
    assert await stores.runs.steps("contoso", "run-1") == ()
    assert await stores.runs.items("contoso", "run-1", "each") == ()
    assert await stores.events.read("contoso", "run-1", after_seq=0, limit=10) == ()
    assert await stores.approvals.of_run("contoso", "run-1") == ()
    assert await stores.model_results.get(RESULT) is None
    assert await stores.run_keys.get("contoso", "run-1") is not None
    assert [record.run_id for record in await stores.audit.read("contoso", after_seq=0, limit=9)] == ["run-1", "run-2"]
    # Another run is as it was.
    assert len(await stores.events.read("contoso", "run-2", after_seq=0, limit=10)) == 4
    assert len(await stores.runs.items("contoso", "run-2", "each")) == 3


async def test_removing_twice_or_at_once_is_removing_once(stores: Stores) -> None:
    await finished(stores)
    gone = await asyncio.gather(*(stores.ended_runs.remove("contoso", "run-1") for _ in range(3)))
    assert sum(gone) >= 1
    assert await stores.ended_runs.remove("contoso", "run-1") is False
    assert await stores.ended_runs.remove("contoso", "nobody") is False


async def test_what_lies_under_an_id_of_no_run_is_removed_too(stores: Stores) -> None:
    key = ModelCallKey("contoso", "preview-1", 1, "plan", "a" * 64)
    await stores.budgets.open("contoso", "preview-1", limit_micro_usd=10)
    assert await stores.model_results.begin(key) == 1
    assert await stores.ended_runs.remove("contoso", "preview-1") is False
    assert await stores.model_results.begin(key) == 1, "nothing is remembered"


async def test_a_run_that_is_not_over_stays_as_it_is(stores: Stores) -> None:
    await stores.runs.create(run(status=RunStatus.RUNNING), [event()], None)
    with pytest.raises(ConflictError) as caught:
        await stores.ended_runs.remove("contoso", "run-1")
    assert caught.value.code == "run.not_finished"
    assert len(await stores.events.read("contoso", "run-1", after_seq=0, limit=10)) == 1


async def test_another_tenant_removes_nothing(stores: Stores) -> None:
    await finished(stores)
    assert await stores.ended_runs.remove("fabrikam", "run-1") is False
    assert await stores.runs.get("contoso", "run-1") is not None


async def test_the_idempotency_key_of_a_removed_run_is_free_again(stores: Stores) -> None:
    first = await finished(stores)
    await stores.ended_runs.remove("contoso", "run-1")
    again = await stores.runs.create(run("run-9", created_at=first.created_at), [], claim("key-run-1", "other"))
    assert again.outcome == "created"


async def test_what_comes_too_late_brings_nothing_back(stores: Stores) -> None:
    await finished(stores)
    await stores.ended_runs.remove("contoso", "run-1")
    with pytest.raises(NotFoundError):
        await stores.runs.put_step(step("late"), [event("late")])
    with pytest.raises(NotFoundError):
        await stores.events.append("contoso", "run-1", [event("late")])


async def test_no_row_of_a_removed_run_is_left_in_any_table(open_sql: Callable[[], Stores]) -> None:
    """Read off the schema, so that a new table counts."""
    stores = open_sql()
    await finished(stores)
    assert stores.database is not None

    def counts(connection) -> dict[str, int]:
        tables = [
            name
            for name in inspect(connection).get_table_names()
            if "run_id" in {column["name"] for column in inspect(connection).get_columns(name)}
        ]
        query = "SELECT count(*) FROM {} WHERE run_id = 'run-1'"
        return {name: connection.execute(text(query.format(name))).scalar_one() for name in tables}

    before = await stores.database.read(counts)
    assert {name for name, count in before.items() if count == 0} == set()
    await stores.ended_runs.remove("contoso", "run-1")
    after = await stores.database.read(counts)
    assert {name for name, count in after.items() if count} == {"audit_records", "run_keys"}


async def test_a_long_run_goes_in_batches_and_a_stopped_removal_is_finished(
    open_sql: Callable[[], Stores], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.adapters.sql.ended_runs.EVENTS_AT_ONCE", 10)
    stores = open_sql()
    await stores.runs.create(run(status=RunStatus.RUNNING), [event(f"e{number}") for number in range(35)], None)
    await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.FAILED), [])
    with monkeypatch.context() as patch:
        patch.setattr("engine.adapters.sql.ended_runs._remove", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await stores.ended_runs.remove("contoso", "run-1")
    assert await stores.events.read("contoso", "run-1", after_seq=0, limit=99) == ()
    assert await stores.runs.get("contoso", "run-1") is not None
    assert await open_sql().ended_runs.remove("contoso", "run-1")


def test_the_tables_of_a_run_are_found_and_the_run_goes_last() -> None:
    names = [table.name for table in tables_of_a_run()]
    assert names[-1] == "runs"
    assert {"claims", "steps", "events", "approvals", "reservations", "budgets", "model_results"} <= set(names)
    assert not {"audit_records", "run_keys", "daily_budgets"} & set(names)
    assert names.index("reservations") < names.index("budgets")


async def test_documents_of_an_earlier_version_are_due_by_their_creation(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await finished(stores)
    for document in documents_of(cosmos):
        if document["kind"] == "run":
            del document["updatedAt"]
    stores.clock.advance(2 * 86_400)
    assert await due(stores) == ["run-1"]


async def test_no_document_of_a_removed_run_is_left_anywhere(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await finished(stores)
    await stores.ended_runs.remove("contoso", "run-1")
    left = [each for each in documents_of(cosmos) if "run-1" in str(each) and each["kind"] not in ("record", "head")]
    # Accounts of budgets hold amounts alone; a cached result holds where it lies and is removed by whoever erases the run.
    assert sorted({str(each["kind"]) for each in left}) == ["account", "key", "result"]


def documents_of(cosmos: CosmosWorld) -> list[dict[str, object]]:
    """All documents as the service has them."""
    databases = cosmos.fake.account.databases.values()
    return [each for containers in databases for c in containers.values() for each in c.documents.values()]
