"""What every run store promises, whatever it is made of."""

from __future__ import annotations

import asyncio
import base64
import string
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.run_cursor import cursor_after, position_of
from engine.domain.errors import ConflictError, LivoaError, NotFoundError
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.run import ErrorInfo, Run
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import ALL_RUNS, RunChange, RunFilter
from tests.contract.stores.builders import NOON, broken_event, claim, event, principal, ref, run, step
from tests.contract.stores.conftest import Stores

ACCEPTED = new_event(EventType.RUN_ACCEPTED, RunEventData())


async def keys_of(stores: Stores, run_id: str = "run-1", tenant_id: str = "contoso") -> list[tuple[int, str]]:
    return [(e.seq, e.type.value) for e in await stores.events.read(tenant_id, run_id, after_seq=0, limit=1000)]


async def test_a_created_run_is_read_back_as_it_was(stores: Stores) -> None:
    result = await stores.runs.create(run(traceparent="00-a-b-01"), [ACCEPTED], claim())
    assert (result.outcome, result.run) == ("created", run(traceparent="00-a-b-01"))
    assert await stores.runs.get("contoso", "run-1") == run(traceparent="00-a-b-01")
    assert await keys_of(stores) == [(1, "run.accepted")]


async def test_the_same_key_with_the_same_request_is_the_first_run(stores: Stores) -> None:
    await stores.runs.create(run(), [ACCEPTED], claim())
    again = await stores.runs.create(run("run-2"), [ACCEPTED], claim())
    assert (again.outcome, again.run.run_id) == ("existing", "run-1")
    assert await stores.runs.get("contoso", "run-2") is None
    assert await keys_of(stores) == [(1, "run.accepted")]


async def test_the_same_key_with_another_request_writes_nothing(stores: Stores) -> None:
    await stores.runs.create(run(), [ACCEPTED], claim())
    other = await stores.runs.create(run("run-2"), [ACCEPTED], claim(request="other"))
    assert (other.outcome, other.run.run_id) == ("mismatch", "run-1")
    assert await stores.runs.get("contoso", "run-2") is None


async def test_an_existing_run_is_answered_as_it_stands_now(stores: Stores) -> None:
    await stores.runs.create(run(), [], claim())
    await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.PLANNING))
    assert (await stores.runs.create(run("run-2"), [], claim())).run.status is RunStatus.PLANNING


async def test_a_key_belongs_to_its_tenant_and_subject(stores: Stores) -> None:
    assert (await stores.runs.create(run("run-1"), [], claim())).outcome == "created"
    bob = run("run-2", principal=principal(subject="tid:bob"))
    assert (await stores.runs.create(bob, [], claim())).outcome == "created"
    assert (await stores.runs.create(run("run-3", "fabrikam"), [], claim())).outcome == "created"


@pytest.mark.parametrize("key", ["x" * 5_000, "zero\x00byte", "Schlüssel 🔑", "'; DROP TABLE runs; --"])
async def test_any_text_can_be_a_key(stores: Stores, key: str) -> None:
    assert (await stores.runs.create(run(), [], claim(key))).outcome == "created"
    assert (await stores.runs.create(run("run-2"), [], claim(key))).outcome == "existing"


async def test_the_run_id_is_a_key_too(stores: Stores) -> None:
    await stores.runs.create(run(), [ACCEPTED], None)
    assert (await stores.runs.create(run(), [ACCEPTED], None)).outcome == "existing"
    assert (await stores.runs.create(run(request_ref=ref("other")), [], None)).outcome == "mismatch"
    assert (await stores.runs.create(run(principal=principal(subject="tid:bob")), [], None)).outcome == "mismatch"
    assert await keys_of(stores) == [(1, "run.accepted")]


async def test_concurrent_creates_under_one_key_make_one_run(stores: Stores) -> None:
    results = await asyncio.gather(*(stores.runs.create(run(f"run-{n}"), [ACCEPTED], claim()) for n in range(20)))
    assert sorted(r.outcome for r in results) == ["created"] + ["existing"] * 19
    assert len({r.run.run_id for r in results}) == 1
    assert len((await stores.runs.page("contoso", status=None, cursor=None, limit=100)).runs) == 1


async def test_a_create_whose_events_fail_leaves_no_trace(stores: Stores) -> None:
    with pytest.raises(LivoaError, match="not JSON"):
        await stores.runs.create(run(), [ACCEPTED, broken_event()], claim())
    assert await stores.runs.get("contoso", "run-1") is None
    assert (await stores.runs.create(run("run-2"), [ACCEPTED], claim())).outcome == "created"


async def test_nothing_of_a_tenant_is_reachable_for_another(stores: Stores) -> None:
    await stores.runs.create(run(), [ACCEPTED], None)
    await stores.runs.put_step(step())
    await stores.runs.put_step(step("map", item=0))
    runs = stores.runs
    assert await runs.get("fabrikam", "run-1") is None
    assert (await runs.page("fabrikam", status=None, cursor=None, limit=10)).runs == ()
    assert await runs.get_step("fabrikam", "run-1", "spend") is None
    assert await runs.steps("fabrikam", "run-1") == ()
    assert await runs.items("fabrikam", "run-1", "map") == ()
    for write in (
        runs.change("fabrikam", "run-1", RunChange(status=RunStatus.CANCELLING)),
        runs.put_step(step(tenant_id="fabrikam")),
    ):
        with pytest.raises(NotFoundError) as caught:
            await write
        assert caught.value.code == "run.not_found"
    assert await runs.get("contoso", "run-1") == run()


async def test_two_tenants_may_use_the_same_run_id_without_meeting(stores: Stores) -> None:
    await stores.runs.create(run(), [ACCEPTED], None)
    await stores.runs.create(run(tenant_id="fabrikam", title="Other"), [], None)
    await stores.runs.put_step(step(tenant_id="fabrikam"), [event()])
    assert await stores.runs.steps("contoso", "run-1") == ()
    assert await keys_of(stores) == [(1, "run.accepted")]
    assert [r.title for r in await stores.runs.unfinished(10)] == ["Why did sales fall?", "Other"]


async def test_a_change_sets_what_it_names_and_keeps_the_rest(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    stores.clock.advance(5)
    changed = await stores.runs.change(
        "contoso",
        "run-1",
        RunChange(status=RunStatus.RUNNING, plan_ref=ref("plan"), plan_hash="h", plan_version=1, add_cost_micro_usd=7),
        [event()],
    )
    expected = run(
        status=RunStatus.RUNNING,
        plan_ref=ref("plan"),
        plan_hash="h",
        plan_version=1,
        cost_micro_usd=7,
        version=2,
        updated_at=stores.clock.now(),
    )
    assert changed == expected
    assert await stores.runs.get("contoso", "run-1") == expected
    assert await keys_of(stores) == [(1, "step.started")]


async def test_a_change_delivered_twice_counts_its_cost_once(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    for _ in range(2):
        await stores.runs.change("contoso", "run-1", RunChange(add_cost_micro_usd=7), [event()])
    found = await stores.runs.get("contoso", "run-1")
    assert found is not None
    assert found.cost_micro_usd == 7
    assert await keys_of(stores) == [(1, "step.started")]


async def test_a_change_of_an_unknown_run_is_not_found(stores: Stores) -> None:
    with pytest.raises(NotFoundError):
        await stores.runs.change("contoso", "run-9", RunChange())


async def test_a_change_bound_to_a_status_leaves_a_run_in_another_one_alone(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    with pytest.raises(ConflictError) as caught:
        await stores.runs.change(
            "contoso",
            "run-1",
            RunChange(status=RunStatus.RUNNING),
            [event()],
            only_from=frozenset({RunStatus.PLANNING}),
        )
    assert caught.value.code == "run.conflict"
    assert await stores.runs.get("contoso", "run-1") == run()
    assert await keys_of(stores) == []


@pytest.mark.parametrize("final", [status for status in RunStatus if status.is_final])
async def test_a_final_run_never_leaves_its_status(stores: Stores, final: RunStatus) -> None:
    await stores.runs.create(run(), [], None)
    await stores.runs.change("contoso", "run-1", RunChange(status=final, finished_at=NOON))
    for status in RunStatus:
        if status is not final:
            with pytest.raises(ConflictError) as caught:
                await stores.runs.change("contoso", "run-1", RunChange(status=status), [event()])
            assert caught.value.code == "run.finished"
    found = await stores.runs.get("contoso", "run-1")
    assert found is not None
    assert found.status is final
    assert await keys_of(stores) == []


async def test_finishing_twice_keeps_the_first_end(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    first = RunChange(status=RunStatus.FAILED, finished_at=NOON, error=ErrorInfo(code="a", message=""))
    await stores.runs.change("contoso", "run-1", first)
    stores.clock.advance(60)
    again = RunChange(status=RunStatus.FAILED, finished_at=stores.clock.now(), error=ErrorInfo(code="b", message=""))
    found = await stores.runs.change("contoso", "run-1", again)
    assert (found.finished_at, found.error) == (NOON, ErrorInfo(code="a", message=""))


async def test_only_one_of_two_racing_ends_wins(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    ends = [RunStatus.SUCCEEDED, RunStatus.CANCELLED] * 5
    results: list[Any] = await asyncio.gather(
        *(stores.runs.change("contoso", "run-1", RunChange(status=end)) for end in ends), return_exceptions=True
    )
    won = {r.status for r in results if isinstance(r, Run)}
    assert len(won) == 1
    assert all(isinstance(r, ConflictError) for r in results if not isinstance(r, Run))


async def test_changes_delivered_at_once_are_all_counted(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    await asyncio.gather(
        *(stores.runs.change("contoso", "run-1", RunChange(add_cost_micro_usd=1), [event(f"e{n}")]) for n in range(30)),
        *(stores.runs.put_step(step(f"s{n}"), [event(f"s{n}")], add_cost_micro_usd=1) for n in range(30)),
    )
    found = await stores.runs.get("contoso", "run-1")
    assert found is not None
    assert (found.cost_micro_usd, found.version) == (60, 61)
    assert [seq for seq, _ in await keys_of(stores)] == list(range(1, 61))


async def test_a_step_is_read_back_as_it_was(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    record = step(output_ref=ref("out"), error=ErrorInfo(code="x", message="y"), cost_micro_usd=3, item_count=4)
    assert await stores.runs.put_step(record, [event()])
    assert await stores.runs.get_step("contoso", "run-1", "spend") == record
    assert await stores.runs.get_step("contoso", "run-1", "spend", 0) is None
    assert await stores.runs.get_step("contoso", "run-1", "other") is None


async def test_a_step_is_read_together_with_its_run(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    await stores.runs.put_step(step(cost_micro_usd=3), [event()], add_cost_micro_usd=3)
    await stores.runs.put_step(step("map", item=0))
    for step_id, item in (("spend", None), ("spend", 0), ("map", 0), ("map", None), ("other", None)):
        found = await stores.runs.get_with_step("contoso", "run-1", step_id, item)
        assert found == (
            await stores.runs.get("contoso", "run-1"),
            await stores.runs.get_step("contoso", "run-1", step_id, item),
        )
        assert found[0] is not None
        assert found[0].cost_micro_usd == 3
    assert await stores.runs.get_with_step("contoso", "run-2", "spend") == (None, None)
    assert await stores.runs.get_with_step("fabrikam", "run-1", "spend") == (None, None)


@pytest.mark.parametrize("final", [status for status in StepStatus if status.is_final])
async def test_a_final_step_is_never_written_again(stores: Stores, final: StepStatus) -> None:
    await stores.runs.create(run(), [], None)
    done = step(status=final, finished_at=NOON)
    assert await stores.runs.put_step(done, [event("first")], add_cost_micro_usd=5)
    for late in (done, step(status=StepStatus.FAILED), step(attempt=2)):
        assert not await stores.runs.put_step(late, [event("late")], add_cost_micro_usd=5)
    assert await stores.runs.get_step("contoso", "run-1", "spend") == done
    found = await stores.runs.get("contoso", "run-1")
    assert found is not None
    assert found.cost_micro_usd == 5
    assert len(await keys_of(stores)) == 1


async def test_a_result_of_an_earlier_attempt_changes_nothing(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    assert await stores.runs.put_step(step(attempt=2))
    assert not await stores.runs.put_step(step(attempt=1, status=StepStatus.SUCCEEDED), [event()])
    assert await stores.runs.get_step("contoso", "run-1", "spend") == step(attempt=2)
    assert await keys_of(stores) == []


async def test_a_later_attempt_replaces_an_open_one(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    await stores.runs.put_step(step(status=StepStatus.WAITING))
    assert await stores.runs.put_step(step(attempt=2, status=StepStatus.SUCCEEDED))
    found = await stores.runs.get_step("contoso", "run-1", "spend")
    assert found is not None
    assert (found.attempt, found.status) == (2, StepStatus.SUCCEEDED)


async def test_an_open_result_delivered_twice_counts_its_cost_once(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    for _ in range(2):
        waiting = step(status=StepStatus.WAITING, cost_micro_usd=9)
        assert await stores.runs.put_step(waiting, [event("step.retried/1")], add_cost_micro_usd=9)
    found = await stores.runs.get("contoso", "run-1")
    assert found is not None
    assert found.cost_micro_usd == 9


async def test_the_cost_of_a_step_shows_in_the_run_and_in_its_version(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    stores.clock.advance(1)
    await stores.runs.put_step(step(), [event("a")])
    assert await stores.runs.get("contoso", "run-1") == run()
    await stores.runs.put_step(step(status=StepStatus.SUCCEEDED), [event("b")], add_cost_micro_usd=5)
    costly = run(cost_micro_usd=5, version=2, updated_at=stores.clock.now())
    assert await stores.runs.get("contoso", "run-1") == costly
    assert (await stores.runs.page("contoso", status=None, cursor=None, limit=1)).runs == (costly,)
    changed = await stores.runs.change("contoso", "run-1", RunChange(add_cost_micro_usd=1))
    assert (changed.cost_micro_usd, changed.version) == (6, 3)


async def test_a_step_whose_events_fail_is_not_written(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    with pytest.raises(LivoaError, match="not JSON"):
        await stores.runs.put_step(step(), [event(), broken_event()], add_cost_micro_usd=5)
    assert await stores.runs.get_step("contoso", "run-1", "spend") is None
    assert await stores.runs.get("contoso", "run-1") == run()
    assert await keys_of(stores) == []
    assert await stores.runs.put_step(step(), [event()])
    assert await keys_of(stores) == [(1, "step.started")]


async def test_a_change_whose_events_fail_is_not_made(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    with pytest.raises(LivoaError, match="not JSON"):
        await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.FAILED), [event(), broken_event()])
    assert await stores.runs.get("contoso", "run-1") == run()
    assert await keys_of(stores) == []


async def test_steps_come_in_order_of_id_without_items_and_items_in_order_of_number(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    for step_id in ("b", "a", "a-b", "a.b", "B", "a_b"):
        await stores.runs.put_step(step(step_id))
    for item in (10, 2, 0):
        await stores.runs.put_step(step("a", item=item))
    assert [s.step_id for s in await stores.runs.steps("contoso", "run-1")] == ["B", "a", "a-b", "a.b", "a_b", "b"]
    assert [s.item for s in await stores.runs.items("contoso", "run-1", "a")] == [0, 2, 10]
    assert await stores.runs.items("contoso", "run-1", "b") == ()
    assert await stores.runs.get_step("contoso", "run-1", "a", 2) == step("a", item=2)


async def pages(stores: Stores, status: RunStatus | None = None, limit: int = 3) -> list[list[str]]:
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = await stores.runs.page("contoso", status=status, cursor=cursor, limit=limit)
        found.append([r.run_id for r in page.runs])
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_pages_list_every_run_once_newest_first(stores: Stores) -> None:
    for number in range(7):
        await stores.runs.create(run(f"run-{number}", minute=number // 2), [], None)
    assert await pages(stores) == [["run-6", "run-5", "run-4"], ["run-3", "run-2", "run-1"], ["run-0"]]


async def test_a_full_last_page_has_no_successor(stores: Stores) -> None:
    for number in range(3):
        await stores.runs.create(run(f"run-{number}"), [], None)
    assert await pages(stores) == [["run-2", "run-1", "run-0"]]
    assert await pages(stores, RunStatus.FAILED) == [[]]


async def test_pages_are_stable_while_runs_are_added(stores: Stores) -> None:
    for number in range(6):
        await stores.runs.create(run(f"run-{number}", minute=number), [], None)
    seen: list[str] = []
    cursor: str | None = None
    for round_number in range(3):
        page = await stores.runs.page("contoso", status=None, cursor=cursor, limit=2)
        seen += [r.run_id for r in page.runs]
        cursor = page.next_cursor
        await stores.runs.create(run(f"new-{round_number}", minute=100 + round_number), [], None)
    assert seen == ["run-5", "run-4", "run-3", "run-2", "run-1", "run-0"]


async def test_pages_can_be_confined_to_a_status(stores: Stores) -> None:
    for number in range(5):
        await stores.runs.create(run(f"run-{number}", minute=number), [], None)
    for number in (0, 2, 4):
        await stores.runs.change("contoso", f"run-{number}", RunChange(status=RunStatus.FAILED))
    assert await pages(stores, RunStatus.FAILED, limit=2) == [["run-4", "run-2"], ["run-0"]]
    assert await pages(stores, RunStatus.ACCEPTED, limit=2) == [["run-3", "run-1"]]


async def test_pages_and_counts_can_be_confined_to_a_time(stores: Stores) -> None:
    for number in range(6):
        await stores.runs.create(run(f"run-{number}", minute=number), [], None)
    await stores.runs.create(run("run-9", "fabrikam", minute=3), [], None)
    await stores.runs.change("contoso", "run-2", RunChange(status=RunStatus.FAILED))
    within = RunFilter(since=NOON + timedelta(minutes=1), until=NOON + timedelta(minutes=5))
    found: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = await stores.runs.page(
            "contoso", status=RunStatus.ACCEPTED, cursor=cursor, limit=2, since=within.since, until=within.until
        )
        found += [one.run_id for one in page.runs]
        cursor = page.next_cursor
        if cursor is None:
            break
        with pytest.raises(LivoaError):
            await stores.runs.page("contoso", status=RunStatus.ACCEPTED, cursor=cursor, limit=2, since=within.since)
    assert found == ["run-4", "run-3", "run-1"]
    counts = await stores.runs.counts("contoso", within)
    assert (dict(counts.by_status), counts.is_complete) == ({RunStatus.ACCEPTED: 3, RunStatus.FAILED: 1}, True)


async def test_counts_are_of_one_tenant_and_follow_every_change(stores: Stores) -> None:
    assert dict((await stores.runs.counts("contoso")).by_status) == {}
    for number in range(5):
        await stores.runs.create(run(f"run-{number}", minute=number), [], None)
    await stores.runs.create(run("run-0", "fabrikam"), [], None)
    await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.RUNNING))
    await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.SUCCEEDED))
    counts = await stores.runs.counts("contoso")
    assert dict(counts.by_status) == {RunStatus.ACCEPTED: 4, RunStatus.SUCCEEDED: 1}
    assert dict((await stores.runs.counts("fabrikam")).by_status) == {RunStatus.ACCEPTED: 1}


async def test_no_more_than_so_many_are_counted_and_they_are_the_newest(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("store_rules", "sql.run_store", "cosmos.run_store"):
        monkeypatch.setattr(f"engine.adapters.{module}.MAX_COUNTED", 3)
    for number in range(4):
        await stores.runs.create(run(f"run-{number}", minute=number), [], None)
    await stores.runs.change("contoso", "run-0", RunChange(status=RunStatus.FAILED))
    counts = await stores.runs.counts("contoso")
    assert (dict(counts.by_status), counts.is_complete) == ({RunStatus.ACCEPTED: 3}, False)
    newer = await stores.runs.counts("contoso", RunFilter(since=NOON + timedelta(minutes=1)))
    assert newer.is_complete


async def test_a_cursor_of_another_tenant_or_filter_is_refused(stores: Stores) -> None:
    for tenant_id in ("contoso", "fabrikam"):
        for number in range(2):
            await stores.runs.create(run(f"run-{number}", tenant_id), [], None)
    cursor = (await stores.runs.page("contoso", status=None, cursor=None, limit=1)).next_cursor
    assert cursor is not None
    for tenant_id, status in (("fabrikam", None), ("contoso", RunStatus.ACCEPTED)):
        with pytest.raises(LivoaError) as caught:
            await stores.runs.page(tenant_id, status=status, cursor=cursor, limit=1)
        assert (caught.value.code, caught.value.status) == ("cursor.invalid", 400)


MALFORMED = ["", "x", "=", "\x00", "W10", "bnVsbA", "e30", "A" * 10_000, "ä", base64.b64encode(b"[" * 400).decode()]


@pytest.mark.parametrize("cursor", MALFORMED)
async def test_a_malformed_cursor_is_refused(stores: Stores, cursor: str) -> None:
    with pytest.raises(LivoaError) as caught:
        await stores.runs.page("contoso", status=None, cursor=cursor, limit=1)
    assert caught.value.code == "cursor.invalid"


@given(st.data())
def test_every_edit_of_a_cursor_is_refused(data: st.DataObject) -> None:
    cursor = cursor_after(run(), ALL_RUNS)
    at = data.draw(st.integers(0, len(cursor) - 1))
    character = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_=+/"))
    edited = cursor[:at] + character + cursor[at + 1 :]
    if edited == cursor:
        assert position_of(cursor, "contoso", ALL_RUNS) == ("2026-01-05T12:00:00.000000Z", "run-1")
        return
    with pytest.raises(LivoaError):
        position_of(edited, "contoso", ALL_RUNS)


async def test_unfinished_runs_of_all_tenants_come_oldest_first(stores: Stores) -> None:
    await stores.runs.create(run("run-2", minute=2), [], None)
    await stores.runs.create(run("run-1", "fabrikam", minute=1), [], None)
    await stores.runs.create(run("run-0", minute=0), [], None)
    await stores.runs.change("contoso", "run-0", RunChange(status=RunStatus.SUCCEEDED))
    await stores.runs.change("contoso", "run-2", RunChange(status=RunStatus.SUSPENDED))
    assert [(r.tenant_id, r.run_id) for r in await stores.runs.unfinished(10)] == [
        ("fabrikam", "run-1"),
        ("contoso", "run-2"),
    ]
    assert len(await stores.runs.unfinished(1)) == 1
    suspended = await stores.runs.unfinished(10, statuses=frozenset({RunStatus.SUSPENDED, RunStatus.SUCCEEDED}))
    assert [r.run_id for r in suspended] == ["run-2"]


async def test_a_run_that_is_over_takes_no_step_and_no_event(stores: Stores) -> None:
    await stores.runs.create(run(), [ACCEPTED], None)
    await stores.runs.change(
        "contoso",
        "run-1",
        RunChange(status=RunStatus.CANCELLED),
        [new_event(EventType.RUN_CANCELLED, RunEventData())],
    )
    assert not await stores.runs.put_step(step(), [event()], add_cost_micro_usd=5)
    assert await stores.events.append("contoso", "run-1", [event("late")]) == ()
    assert await stores.runs.steps("contoso", "run-1") == ()
    assert [key for _, key in await keys_of(stores)][-1] == "run.cancelled"
    stored = await stores.runs.get("contoso", "run-1")
    assert stored is not None
    assert stored.cost_micro_usd == 0
