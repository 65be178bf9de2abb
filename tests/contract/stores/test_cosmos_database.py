"""What holds of the stores in Cosmos DB in particular: answers that are lost, callers that stop half-way, several processes,
several physical partitions, documents that are not the tenant's, and what operations cost.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.adapters.cosmos.connection import MAX_TRIES, MAX_UNSURE, MovedError
from engine.adapters.cosmos.definitions import CONTAINERS, RUNS, TENANTS
from engine.adapters.cosmos.repository import MAX_BATCH, Create, Find, Put, TenantRepository
from engine.adapters.cosmos.result_cache import RESULT_TTL_S
from engine.adapters.cosmos.run_partition import MARKER_TTL_S, RunPartitions
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import verify
from engine.ports.result_cache import CachedResult
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import NOON, approval, claim, entry, event, ref, run, step
from tests.contract.stores.conftest import CosmosWorld, Stores
from tests.support.cosmos_fake import Fault, cut_within
from tests.support.cosmos_fake.faults import Kind

LOST: list[Kind] = ["lost_answer", "lost_connection"]
REFUSED: list[Kind] = ["throttled", "retry_with", "timed_out"]


def documents(world: CosmosWorld, container: str) -> list[dict[str, Any]]:
    return list(world.fake.account.container("livoa", container).documents.values())


@pytest.mark.parametrize("kind", [*LOST, *REFUSED])
async def test_a_write_whose_answer_is_lost_or_refused_happens_once_and_is_answered_as_if_nothing_was(
    cosmos: CosmosWorld, kind: Kind
) -> None:
    stores, faults = cosmos.open(), cosmos.fake.faults
    for container in ("tenants", "runs"):
        faults.add(Fault(kind, f"batch:{container}"))
    assert (await stores.runs.create(run(), [event("a")], claim())).outcome == "created"
    faults.add(Fault(kind, "batch"))
    planning = RunChange(status=RunStatus.PLANNING, add_cost_micro_usd=5)
    changed = await stores.runs.change("contoso", "run-1", planning, only_from=frozenset({RunStatus.ACCEPTED}))
    assert (changed.version, changed.cost_micro_usd) == (2, 5)
    faults.add(Fault(kind, "batch"))
    done = step(status=StepStatus.SUCCEEDED)
    assert await stores.runs.put_step(done, [event("b")], add_cost_micro_usd=3), "its own record is not somebody else's"
    faults.add(Fault(kind, "batch"))
    assert [e.seq for e in await stores.events.append("contoso", "run-1", [event("c")])] == [3]
    found = await stores.runs.get("contoso", "run-1")
    assert found is not None
    assert (found.cost_micro_usd, found.version) == (8, 3)
    assert [e.seq for e in await stores.events.read("contoso", "run-1", after_seq=0, limit=9)] == [1, 2, 3]
    assert len(faults.struck) == 5


@pytest.mark.parametrize("kind", [*LOST, *REFUSED])
async def test_the_other_stores_write_once_too(cosmos: CosmosWorld, kind: Kind) -> None:
    stores, faults = cosmos.open(), cosmos.fake.faults
    await stores.runs.create(run(), [], None)
    faults.add(Fault(kind, "batch"))
    first = await stores.audit.append(entry("a"))
    assert [first] == list(await stores.audit.read("contoso", after_seq=0, limit=9))
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=10)
    faults.add(Fault(kind, "batch"))
    assert await stores.budgets.reserve("contoso", "run-1", "k", amount_micro_usd=10)
    faults.add(Fault(kind, "batch"))
    assert await stores.budgets.close("contoso", "run-1") == 1
    day = await stores.budgets.daily_state("contoso", stores.clock.now().date())
    assert (day.reserved_micro_usd, day.spent_micro_usd) == (0, 0)
    faults.add(Fault(kind, "batch"))
    asked = await stores.approvals.request(approval(stores.clock.now()))
    assert await stores.approvals.of_run("contoso", "run-1") == (asked,)
    assert len(await stores.events.read("contoso", "run-1", after_seq=0, limit=9)) == 1
    assert len(faults.struck) == 4


async def test_a_runs_account_stays_small_however_many_steps_and_attempts_it_pays_for(cosmos: CosmosWorld) -> None:
    """The service takes no document above 2 MB, and a run may have 10,000 items, each with several attempts."""
    ledger = cosmos.open().budgets
    await ledger.open("contoso", "run-1", limit_micro_usd=10**9)
    largest = []
    for item in range(150):
        for attempt in range(1, 3 if item % 3 == 0 else 2):
            key = f"run-1/a-step-with-a-long-name/{item}/{attempt}"
            assert await ledger.reserve("contoso", "run-1", key, amount_micro_usd=1_000)
            await ledger.settle("contoso", "run-1", key, spent_micro_usd=700)
        if item in (30, 149):
            largest.append(max(len(json.dumps(document)) for document in documents(cosmos, "tenants")))
    state = await ledger.state("contoso", "run-1")
    assert state is not None
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 200 * 700)
    assert len([d for d in documents(cosmos, "tenants") if d["kind"] == "reservation"]) == 200
    assert largest[1] < 600
    assert largest[1] - largest[0] <= 8, "the largest has grown by a figure here and there"


async def test_more_reservations_than_a_transaction_holds_are_closed_once(cosmos: CosmosWorld) -> None:
    ledger, other = cosmos.open().budgets, cosmos.open().budgets
    await ledger.open("contoso", "run-1", limit_micro_usd=10**6)
    for number in range(130):
        assert await ledger.reserve("contoso", "run-1", f"model/{number}", amount_micro_usd=10)
    assert await ledger.reserve("contoso", "run-1", "run-1/step", amount_micro_usd=7)
    cosmos.fake.faults.add(Fault("lost_answer", "batch"))
    closed = await asyncio.gather(
        ledger.close("contoso", "run-1", prefix="model/", as_spent=True),
        other.close("contoso", "run-1", prefix="model/", as_spent=True),
    )
    assert sum(closed) >= 130
    state = await ledger.state("contoso", "run-1")
    assert state is not None
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (7, 1_300)
    day = await ledger.daily_state("contoso", cosmos.clock.now().date())
    assert (day.reserved_micro_usd, day.spent_micro_usd) == (7, 1_300)


async def test_a_write_found_again_is_found_although_others_wrote_since(cosmos: CosmosWorld) -> None:
    """Neither the run nor the step shows it any more; only the marker does."""
    ours, theirs = cosmos.open(), cosmos.open()
    await ours.runs.create(run(), [], None)
    partitions: RunPartitions = ours.runs._partitions  # type: ignore[attr-defined]  # to come in between a write and its repetition
    real = partitions.head

    async def head(tenant_id: str, run_id: str) -> Any:
        if cosmos.fake.faults.struck:
            partitions.head = real  # type: ignore[method-assign]
            for number in range(20):
                await theirs.runs.change("contoso", "run-1", RunChange(add_cost_micro_usd=1), [event(f"{number}")])
        return await real(tenant_id, run_id)

    partitions.head = head  # type: ignore[method-assign]
    cosmos.fake.faults.add(Fault("lost_answer", "batch"))
    await ours.runs.change("contoso", "run-1", RunChange(add_cost_micro_usd=1_000))
    found = await theirs.runs.get("contoso", "run-1")
    assert found is not None
    assert found.cost_micro_usd == 1_020


async def test_markers_of_writes_go_by_themselves(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(), [], None)
    await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.PLANNING))
    repository = TenantRepository(cosmos.connect(), RUNS, "contoso")
    markers = Find("c.kind = 'write'", {}, 9)
    assert len(await repository.find(markers, "run-1")) == 1
    cosmos.clock.advance(MARKER_TTL_S)
    assert await repository.find(markers, "run-1") == []
    assert await stores.runs.get("contoso", "run-1") is not None


async def test_cached_results_go_by_themselves(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await stores.result_cache.put("contoso", "a" * 64, CachedResult("run-1", ref(), NOON))
    cosmos.clock.advance(RESULT_TTL_S - 1)
    assert await stores.result_cache.get("contoso", "a" * 64) is not None
    cosmos.clock.advance(1)
    assert await stores.result_cache.get("contoso", "a" * 64) is None


async def test_a_creation_that_stopped_after_its_claim_is_finished_by_whoever_comes_next(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    cosmos.fake.faults.add(Fault("timed_out", "batch:runs", times=MAX_UNSURE))
    with pytest.raises(LivoaError) as caught:
        await stores.runs.create(run(), [event("a")], claim())
    assert caught.value.code == "store.unavailable"
    assert await stores.runs.get("contoso", "run-1") is None
    other = await cosmos.open().runs.create(run("run-2"), [event("b")], claim(request="other"))
    assert (other.outcome, other.run) == ("mismatch", run())
    again = await cosmos.open().runs.create(run("run-3"), [event("c")], claim())
    assert (again.outcome, again.run) == ("existing", run())
    assert len(await stores.events.read("contoso", "run-1", after_seq=0, limit=9)) == 1
    assert [r.run_id for r in (await stores.runs.page("contoso", status=None, cursor=None, limit=9)).runs] == ["run-1"]


async def test_processes_that_create_under_one_key_make_one_run(cosmos: CosmosWorld) -> None:
    processes = [cosmos.open() for _ in range(4)]
    results = await asyncio.gather(
        *(processes[n % 4].runs.create(run(f"run-{n}"), [event("a")], claim()) for n in range(12))
    )
    assert sorted(result.outcome for result in results) == ["created"] + ["existing"] * 11
    assert len([d for d in documents(cosmos, "runs") if d["kind"] == "run"]) == 1


async def test_processes_that_write_into_one_run_leave_no_gap_and_lose_nothing(cosmos: CosmosWorld) -> None:
    processes = [cosmos.open() for _ in range(3)]
    await processes[0].runs.create(run(), [], None)

    async def write(stores: Stores, number: int) -> None:
        await stores.runs.put_step(step(f"s{number}"), [event(f"s{number}"), event("both")], add_cost_micro_usd=1)

    await asyncio.gather(*(write(processes[n % 3], n) for n in range(30)))
    events = await processes[0].events.read("contoso", "run-1", after_seq=0, limit=99)
    assert [e.seq for e in events] == list(range(1, 32))
    found = await processes[0].runs.get("contoso", "run-1")
    assert found is not None
    assert found.cost_micro_usd == 30


async def test_changes_of_several_processes_that_say_nothing_are_all_counted(cosmos: CosmosWorld) -> None:
    """Without events only the run's etag stands between two writers."""
    processes = [cosmos.open() for _ in range(3)]
    await processes[0].runs.create(run(), [], None)
    cost = RunChange(add_cost_micro_usd=1)
    await asyncio.gather(*(processes[n % 3].runs.change("contoso", "run-1", cost) for n in range(18)))
    found = await processes[0].runs.get("contoso", "run-1")
    assert found is not None
    assert (found.cost_micro_usd, found.version) == (18, 19)


async def test_processes_that_append_to_one_chain_do_not_fork_it_and_spans_follow_each_other(
    cosmos: CosmosWorld,
) -> None:
    processes = [cosmos.open() for _ in range(3)]
    await asyncio.gather(*(processes[n % 3].audit.append(entry(f"e{n % 60}")) for n in range(75)))
    records = await cosmos.open().audit.read("contoso", after_seq=0, limit=99)
    assert [r.seq for r in records] == list(range(1, 61))
    assert verify(records, "contoso") == []
    assert len({d["span"] for d in documents(cosmos, "audit")}) == 3
    assert [r.seq for r in await processes[0].audit.read("contoso", after_seq=24, limit=3)] == [25, 26, 27]
    known = await cosmos.open().audit.append(entry(records[0].entry_id))
    assert known == records[0], "a known entry is found in an earlier span"


async def test_answers_of_several_physical_partitions_are_one_answer_in_order(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    for number in range(24):
        await stores.runs.create(run(f"run-{number:02}", minute=number), [], None)
    container = cosmos.fake.account.container("livoa", "runs")
    cut = cut_within(("/tenantId", "/runId"), "contoso")
    halves = {container.epk_of(key) < cut for key, _ in container.documents}
    assert halves == {True, False}, "the runs lie on both sides of a cut, or this shows nothing"
    seen: list[str] = []
    cursor = None
    for _ in range(5):
        page = await stores.runs.page("contoso", status=None, cursor=cursor, limit=5)
        seen, cursor = seen + [r.run_id for r in page.runs], page.next_cursor
    assert (seen, cursor) == ([f"run-{number:02}" for number in reversed(range(24))], None)
    assert [r.run_id for r in await stores.runs.unfinished(3)] == ["run-00", "run-01", "run-02"]


async def test_a_document_of_another_tenant_is_never_handed_out(cosmos: CosmosWorld) -> None:
    """Even if the database answered with one: it is looked at again."""
    stores = cosmos.open()
    await stores.runs.create(run(), [], None)
    for document in documents(cosmos, "runs"):
        document["tenantId"] = "fabrikam"
    for ask in (
        stores.runs.get("contoso", "run-1"),
        stores.runs.steps("contoso", "run-1"),
        stores.runs.page("contoso", status=None, cursor=None, limit=9),
    ):
        if ask.__name__ == "steps":
            assert await ask == (), "there is no step"
            continue
        with pytest.raises(LivoaError) as caught:
            await ask
        assert caught.value.code == "store.foreign_document"


async def test_a_repository_without_a_tenant_or_a_scope_cannot_be_had(cosmos: CosmosWorld) -> None:
    with pytest.raises(ValueError, match="tenant"):
        TenantRepository(cosmos.connect(), RUNS, "")
    with pytest.raises(ValueError, match="scope"):
        await TenantRepository(cosmos.connect(), RUNS, "contoso").read("", "run")


async def test_a_document_cannot_name_another_tenant_or_scope(cosmos: CosmosWorld) -> None:
    repository = TenantRepository(cosmos.connect(), TENANTS, "contoso")
    await repository.write("here", [Put({"id": "a", "tenantId": "fabrikam", "scope": "there"})])
    (written,) = documents(cosmos, "tenants")
    assert (written["tenantId"], written["scope"]) == ("contoso", "here")


async def test_a_transaction_is_all_or_nothing_and_bounded(cosmos: CosmosWorld) -> None:
    repository = TenantRepository(cosmos.connect(), TENANTS, "contoso")
    await repository.write("here", [Create({"id": "a"})])
    with pytest.raises(MovedError):
        await repository.write("here", [Create({"id": "b"}), Create({"id": "a"})])
    assert await repository.read("here", "b") is None
    with pytest.raises(LivoaError) as caught:
        await repository.write("here", [Create({"id": f"n{n}"}) for n in range(MAX_BATCH + 1)])
    assert (caught.value.code, caught.value.status) == ("store.too_large", 413)
    with pytest.raises(LivoaError) as caught:
        await repository.write("here", [Create({"id": "large", "text": "x" * 2_200_000})])
    assert caught.value.code == "store.too_large"


@pytest.mark.parametrize(("kind", "code"), [("throttled", "store.busy"), ("retry_with", "store.busy")])
async def test_a_database_that_stays_too_busy_is_given_up_with_a_code(
    cosmos: CosmosWorld, kind: Kind, code: str
) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(), [], None)
    cosmos.fake.faults.add(Fault(kind, "batch", times=1_000))
    with pytest.raises(LivoaError) as caught:
        await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.PLANNING), [event()])
    assert (caught.value.code, caught.value.status, caught.value.retry_after_s) == (code, 503, 1)
    assert len(cosmos.fake.faults.struck) <= 2 * MAX_TRIES, "the SDK may repeat each of ours once"
    cosmos.fake.faults.pending.clear()
    assert await stores.runs.get("contoso", "run-1") == run()
    assert await stores.events.read("contoso", "run-1", after_seq=0, limit=9) == ()


async def test_a_read_survives_a_short_outage_and_a_long_one_has_a_code(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(), [], None)
    cosmos.fake.faults.add(Fault("lost_connection", "read", times=3))
    assert await stores.runs.get("contoso", "run-1") == run()
    cosmos.fake.faults.add(Fault("lost_connection", "read", times=1_000))
    with pytest.raises(LivoaError) as caught:
        await stores.runs.get("contoso", "run-1")
    assert (caught.value.code, caught.value.status) == ("store.unavailable", 503)


async def test_what_a_store_raises_says_nothing_of_documents(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    cosmos.fake.account.databases["livoa"].pop("audit")
    with pytest.raises(LivoaError) as caught:
        await stores.audit.append(entry("a", body={"secret": "canary"}))
    assert (caught.value.code, caught.value.status) == ("store.unavailable", 503), (
        "a missing container is not an empty one"
    )
    assert "canary" not in str(caught.value)
    assert cosmos.fake.KEY not in repr(cosmos.connect()._settings)


async def test_what_operations_cost_is_recorded_by_container(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(), [], claim())
    await stores.audit.append(entry())
    await stores.runs.unfinished(5)
    units = cosmos.telemetry.units
    assert {
        ("runs", "batch"),
        ("tenants", "batch"),
        ("audit", "batch"),
        ("runs", "read"),
        ("runs", "query_all"),
    } <= set(units)
    assert all(value >= 1.0 for value in units.values())


async def test_a_run_that_ended_elsewhere_takes_no_more(cosmos: CosmosWorld) -> None:
    here, there = cosmos.open(), cosmos.open()
    await here.runs.create(run(), [], None)
    await there.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLED))
    assert not await here.runs.put_step(step(), [event()])
    with pytest.raises(ConflictError):
        await here.runs.change("contoso", "run-1", RunChange(status=RunStatus.RUNNING))


def test_the_definitions_are_those_the_documentation_names() -> None:
    assert [(d.name, d.level, d.default_ttl_s) for d in CONTAINERS] == [
        ("runs", "runId", -1),
        ("audit", "span", None),
        ("tenants", "scope", -1),
    ]
    assert all(d.properties["partitionKey"]["kind"] == "MultiHash" for d in CONTAINERS)
    assert "defaultTtl" not in json.dumps(CONTAINERS[1].properties), "nothing of a chain expires"


@pytest.mark.parametrize("level", ["Session", "Eventual"])
async def test_an_account_that_may_answer_with_the_past_is_refused(cosmos: CosmosWorld, level: str) -> None:
    stores = cosmos.open()
    assert (await stores.runs.create(run(), [event("a")], None)).outcome == "created"
    cosmos.fake.account.consistency = level
    with pytest.raises(LivoaError) as caught:
        await cosmos.open().runs.get("contoso", "run-1")
    assert (caught.value.code, caught.value.status) == ("store.unavailable", 503)
    cosmos.fake.account.consistency = "Strong"
    assert await cosmos.open().runs.get("contoso", "run-1") is not None


async def test_a_document_of_another_run_is_never_handed_out(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(), [], None)
    for document in documents(cosmos, "runs"):
        document["runId"] = "run-2"
    with pytest.raises(LivoaError) as caught:
        await stores.runs.get("contoso", "run-1")
    assert caught.value.code == "store.foreign_document"
