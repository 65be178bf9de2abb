"""The writes around a call: what is true after each of them, whatever the stores, and that one database makes each as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from engine.adapters.memory import MemoryRunKeys
from engine.adapters.sql import SqlCallLedger
from engine.adapters.sql import calls as sql_calls
from engine.domain.audit import AuditType
from engine.domain.checkpoint import Checkpoint
from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.events import EventType
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import verify
from engine.evidence.commitments import KeyedAuditLog
from engine.evidence.on_record import beside
from engine.evidence.watched import WatchedAuditLog
from engine.ports.calls import CallLedger, Closing, NotIntended, Opened, Opening, OutOfBudget, StepWrite, Void
from engine.ports.checkpoints import NoCheckpoints
from engine.ports.run_store import RunChange
from engine.step_runner.in_turn import InTurn
from tests.contract.stores.builders import entry, event, ref, run, sha, step
from tests.contract.stores.conftest import Stores
from tests.support.payloads import keyring

KEY = "run-1/spend#1"
Open = Callable[[], Stores]


def ledger_of(stores: Stores) -> CallLedger:
    """The one that the app has over these stores."""
    if stores.database is not None:
        return SqlCallLedger(stores.database, stores.audit)
    return InTurn(stores.runs, stores.budgets, stores.audit)


async def started(stores: Stores, limit: int = 100, run_id: str = "run-1") -> CallLedger:
    await stores.runs.create(run(run_id), [], None)
    await stores.budgets.open("contoso", run_id, limit_micro_usd=limit)
    return ledger_of(stores)


def opening(run_id: str = "run-1", step_id: str = "spend", **changes: Any) -> Opening:
    attempt = changes.pop("attempt", 1)
    of = f"{run_id}/{step_id}#{attempt}"
    fields: dict[str, Any] = {
        "step": StepWrite(step(step_id, run_id, attempt=attempt), (event(f"step.started/{of}"),)),
        "intent": entry(f"{of}/dispatch.intended", run_id=run_id),
        "key": of,
        "amount_micro_usd": 10,
    }
    return Opening(**(fields | changes))


def closing(run_id: str = "run-1", step_id: str = "spend", **changes: Any) -> Closing:
    attempt = changes.pop("attempt", 1)
    of = f"{run_id}/{step_id}#{attempt}"
    done = step(step_id, run_id, attempt=attempt, status=StepStatus.SUCCEEDED, output_ref=ref(), cost_micro_usd=7)
    fields: dict[str, Any] = {
        "step": StepWrite(done, (event(f"step.succeeded/{of}", EventType.STEP_SUCCEEDED),), 7),
        "result": entry(f"{of}/dispatch.result", run_id=run_id, type=AuditType.DISPATCH_RESULT, body={"cost": 7}),
        "key": of,
        "spent_micro_usd": 7,
    }
    return Closing(**(fields | changes))


async def told(stores: Stores, run_id: str = "run-1") -> dict[str, Any]:
    """All that stands in the stores of one run."""
    state = await stores.budgets.state("contoso", run_id)
    record = await stores.runs.get_step("contoso", run_id, "spend")
    stored = await stores.runs.get("contoso", run_id)
    assert stored is not None
    return {
        "money": (state.reserved_micro_usd, state.spent_micro_usd) if state else None,
        "step": record.status.value if record else None,
        "cost": stored.cost_micro_usd,
        "events": [one.type.value for one in await stores.events.read("contoso", run_id, after_seq=0, limit=99)],
        "audit": [one.type.value for one in await stores.audit.read("contoso", after_seq=0, limit=99, run_id=run_id)],
    }


NOTHING = {"money": (0, 0), "step": None, "cost": 0, "events": [], "audit": []}
OPEN = {"money": (10, 0), "step": "running", "cost": 0, "events": ["step.started"], "audit": ["dispatch.intended"]}
CLOSED = {
    "money": (0, 7),
    "step": "succeeded",
    "cost": 7,
    "events": ["step.started", "step.succeeded"],
    "audit": ["dispatch.intended", "dispatch.result"],
}


async def test_what_is_opened_and_closed_is_on_record_once_however_often_it_is_delivered(stores: Stores) -> None:
    ledger = await started(stores)
    for _ in range(2):
        opened = await ledger.open(opening())
        assert isinstance(opened, Opened)
        assert (opened.intent.entry_id, opened.intent.seq) == (f"{KEY}/dispatch.intended", 1)
        assert await told(stores) == OPEN
    assert await ledger.close(closing())
    assert await told(stores) == CLOSED
    assert not await ledger.close(closing()), "a record that is final stays"
    assert await told(stores) == CLOSED


async def test_a_refused_reservation_writes_nothing_but_what_abandoned_attempts_give_back(stores: Stores) -> None:
    ledger = await started(stores, limit=9)
    assert await stores.budgets.reserve("contoso", "run-1", "run-1/spend#1", amount_micro_usd=3)
    assert isinstance(await ledger.open(opening(attempt=2, abandoned=("run-1/spend#1",))), OutOfBudget)
    assert await told(stores) == NOTHING


async def test_an_attempt_has_the_money_of_those_that_died_before_it(stores: Stores) -> None:
    ledger = await started(stores, limit=10)
    assert isinstance(await ledger.open(opening()), Opened)
    assert isinstance(await ledger.open(opening(attempt=2, abandoned=(KEY,))), Opened)
    assert (await told(stores))["money"] == (10, 0)


async def test_a_run_without_an_account_pays_for_nothing(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    assert isinstance(await ledger_of(stores).open(opening()), OutOfBudget)
    assert (await told(stores))["audit"] == []


@pytest.mark.parametrize("ends", ["final", "later attempt", "run"])
async def test_a_start_that_is_void_announces_nothing_and_leaves_nothing_reserved(stores: Stores, ends: str) -> None:
    ledger = await started(stores)
    assert await stores.budgets.reserve("contoso", "run-1", KEY, amount_micro_usd=10), "by a delivery that died"
    if ends == "run":
        await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLED))
    else:
        changes = {"attempt": 2} if ends == "later attempt" else {"status": StepStatus.FAILED}
        await stores.runs.put_step(step(**changes))
    assert isinstance(await ledger.open(opening()), Void)
    found = await told(stores)
    assert (found["money"], found["events"], found["audit"]) == ((0, 0), [], [])


async def test_what_comes_of_a_call_is_on_record_and_paid_though_another_delivery_was_first(stores: Stores) -> None:
    ledger = await started(stores)
    await ledger.open(opening())
    await stores.runs.put_step(step(status=StepStatus.FAILED))
    assert not await ledger.close(closing())
    found = await told(stores)
    assert found == CLOSED | {"step": "failed", "cost": 0, "events": ["step.started"]}


async def test_an_intent_that_cannot_be_hashed_is_no_intent(stores: Stores) -> None:
    ledger = await started(stores)
    refused = await ledger.open(opening(intent=entry(f"{KEY}/dispatch.intended", body={"share": 0.5})))
    assert isinstance(refused, NotIntended)
    assert isinstance(refused.error, LivoaError)
    assert refused.error.code == "audit.body_invalid"
    assert (await told(stores))["audit"] == []


async def test_facts_whose_ids_are_taken_are_recorded_beside_them_and_two_taken_ids_are_none(stores: Stores) -> None:
    ledger = await started(stores)
    of = f"{KEY}/dispatch.intended"
    await stores.audit.append(entry(of, actor="mallory"))
    await stores.audit.append(entry(f"{KEY}/dispatch.result", actor="mallory"))
    opened = await ledger.open(opening())
    assert isinstance(opened, Opened)
    assert (opened.intent.actor, opened.intent.entry_id[: len(of)], opened.intent.seq) == ("tid:ana", of, 3)
    assert await ledger.close(closing())
    records = await stores.audit.read("contoso", after_seq=0, limit=99)
    assert [record.actor for record in records] == ["mallory", "mallory", "tid:ana", "tid:ana"]
    other = entry(of, body={"step": "other"})
    await stores.audit.append(beside(other, other).model_copy(update={"actor": "eve"}))
    refused = await ledger.open(opening(step_id="other", intent=other))
    assert isinstance(refused, NotIntended)
    assert isinstance(refused.error, LivoaError)
    assert refused.error.code == "audit.entry_taken"


async def test_of_many_calls_at_once_no_more_are_opened_than_the_budget_covers(stores: Stores) -> None:
    ledger = await started(stores, limit=50)
    results = await asyncio.gather(*(ledger.open(opening(step_id=f"s{number}")) for number in range(12)))
    assert [type(one) for one in results].count(Opened) == 5
    assert len(await stores.audit.read("contoso", after_seq=0, limit=99)) == 5
    state = await stores.budgets.state("contoso", "run-1")
    assert state is not None
    assert state.reserved_micro_usd == 50


async def test_calls_of_many_runs_stand_in_no_others_way(stores: Stores) -> None:
    """On PostgreSQL each transaction holds four rows: taken in another order, two of them would wait for each other."""
    runs = [f"run-{number}" for number in range(4)]
    for run_id in runs:
        await started(stores, 10_000, run_id)
    ledger = ledger_of(stores)

    async def work(run_id: str, step_id: str) -> None:
        assert isinstance(await ledger.open(opening(run_id, step_id)), Opened)
        await stores.audit.append(entry(f"{run_id}/{step_id}/other", run_id=run_id))
        assert await ledger.close(closing(run_id, step_id))

    await asyncio.gather(*(work(run_id, f"s{number}") for run_id in runs for number in range(6)))
    records = await stores.audit.read("contoso", after_seq=0, limit=999)
    assert len(records) == 72
    assert not verify(records, "contoso")
    for run_id in runs:
        found = await told(stores, run_id)
        assert (found["money"], found["cost"], len(found["events"])) == ((0, 42), 42, 12)


async def test_what_comes_of_a_call_whose_run_was_erased_is_in_the_chain(stores: Stores) -> None:
    ledger = await started(stores)
    await ledger.open(opening())
    await stores.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLED))
    assert await stores.ended_runs.remove("contoso", "run-1")
    with pytest.raises(NotFoundError):
        await ledger.close(closing())
    records = await stores.audit.read("contoso", after_seq=0, limit=99)
    assert records[-1].type is AuditType.DISPATCH_RESULT


async def test_a_call_in_another_tenants_name_changes_nothing_of_the_run(stores: Stores) -> None:
    ledger = await started(stores)
    theirs = step(tenant_id="fabrikam")
    of = opening(step=StepWrite(theirs), intent=entry(f"{KEY}/dispatch.intended", "fabrikam"))
    assert not isinstance(await ledger.open(of), Opened)
    assert await told(stores) == NOTHING
    await ledger.open(opening())
    done = StepWrite(step(tenant_id="fabrikam", status=StepStatus.FAILED))
    with pytest.raises(NotFoundError):
        await ledger.close(closing(step=done, result=entry(f"{KEY}/dispatch.result", "fabrikam")))
    assert await told(stores) == OPEN
    for changed in ({"tenant_id": "fabrikam"}, {"run_id": "run-2"}):
        with pytest.raises(ValueError, match="one run of one tenant"):
            opening(intent=entry(**changed))
        with pytest.raises(ValueError, match="one run of one tenant"):
            closing(result=entry(**changed))


class Counted(NoCheckpoints):
    """Keeps for whom a checkpoint was asked for."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def make(self, tenant_id: str) -> Checkpoint | None:
        self.made.append(tenant_id)
        return None


async def test_what_the_apps_audit_log_does_with_entries_and_records_is_done_here_too(
    stores: Stores, tmp_path: Path
) -> None:
    checkpoints = Counted()
    keyed = KeyedAuditLog(stores.audit, keyring(tmp_path, MemoryRunKeys()))
    await started(stores)
    log = WatchedAuditLog(keyed, checkpoints, every_records=2)
    ledger: CallLedger = InTurn(stores.runs, stores.budgets, log)
    if stores.database is not None:
        ledger = SqlCallLedger(stores.database, log)
    opened = await ledger.open(opening(intent=entry(f"{KEY}/dispatch.intended", body={"inputs_sha256": sha("yes")})))
    assert isinstance(opened, Opened)
    assert checkpoints.made == []
    done = entry(f"{KEY}/dispatch.result", type=AuditType.DISPATCH_RESULT, body={"output_sha256": sha("yes")})
    assert await ledger.close(closing(result=done))
    intent, result = await stores.audit.read("contoso", after_seq=0, limit=9)
    assert "committed_with" in intent.body
    assert intent.body["inputs_sha256"] == result.body["output_sha256"] != sha("yes")
    assert checkpoints.made == ["contoso"], "after every second record"


PARTS = ("place_of_step", "write_step", "settle_in", "reserve_in", "record_in")


@pytest.mark.parametrize("part", PARTS)
async def test_each_write_is_there_as_a_whole_or_not_at_all(
    open_sql: Open, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = open_sql()
    ledger = await started(stores)
    real = getattr(sql_calls, part)

    def fails_after(connection: Connection, *more: Any, **named: Any) -> Any:
        real(connection, *more, **named)
        raise LivoaError("store.unavailable", "planted", status=503)

    abandoned = opening(abandoned=("run-1/spend#0",))
    with monkeypatch.context() as patch:
        patch.setattr(sql_calls, part, fails_after)
        # One of several in a group, so that it fails in its savepoint and the others go on.
        refused, _ = await asyncio.gather(ledger.open(abandoned), stores.audit.append(entry("other", run_id=None)))
    assert isinstance(refused, NotIntended), part
    assert await told(stores) == NOTHING
    assert isinstance(await ledger.open(abandoned), Opened)
    if part == "reserve_in":
        return
    with monkeypatch.context() as patch:
        patch.setattr(sql_calls, part, fails_after)
        with pytest.raises(LivoaError, match="planted"):
            await ledger.close(closing())
    assert await told(stores) == OPEN
    assert await ledger.close(closing())
    assert await told(stores) == CLOSED


async def test_each_write_is_one_commit(open_sql: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = open_sql()
    ledger = await started(stores)
    assert stores.database is not None
    commits: list[str] = []
    real = stores.database.write

    async def write(work: Any) -> Any:
        commits.append("commit")
        return await real(work)

    monkeypatch.setattr(stores.database, "write", write)
    assert isinstance(await ledger.open(opening()), Opened)
    assert len(commits) == 1
    assert await ledger.close(closing())
    assert len(commits) == 2


async def test_readers_who_wait_for_events_are_woken_by_both(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await started(stores)
    woken: list[tuple[str, str]] = []
    monkeypatch.setattr(stores.wakeups, "notify", woken.append)
    await ledger.open(opening())
    assert woken == [("contoso", "run-1")]
    await ledger.close(closing())
    assert woken == [("contoso", "run-1")] * 2
