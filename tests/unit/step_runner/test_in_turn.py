"""The writes around a call, together and in turn: two ways of writing down the very same, record by record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.memory import MemoryRunKeys
from engine.adapters.sql import (
    Database,
    SqlApprovalStore,
    SqlAuditLog,
    SqlBudgetLedger,
    SqlCallLedger,
    SqlEventLog,
    SqlRunStore,
)
from engine.domain.errors import LivoaError
from engine.domain.outcomes import Failed, Succeeded
from engine.domain.status import RunStatus
from engine.evidence import verify
from engine.evidence.commitments import KeyedAuditLog
from engine.ports.checkpoints import NoCheckpoints
from engine.step_runner import undo_step
from engine.step_runner.task import StepTask
from tests.support.payloads import keyring
from tests.support.world import World, doubled, failing, plan_of, step

UNDO = {"capability": "mail.send", "inputs": {"n": 1}}


class SqlWorld(World):
    """The same world on one SQLite file, its records committing with the keys of ``keys``."""

    def __init__(self, folder: Path, keys: MemoryRunKeys, key_folder: Path, *, together: bool) -> None:
        super().__init__()
        self.database = Database(f"sqlite:///{folder / 'livoa.db'}", self.clock)
        self.runs = SqlRunStore(self.database, self.clock)  # type: ignore[assignment]
        audit = KeyedAuditLog(SqlAuditLog(self.database), keyring(key_folder, keys))
        self.deps = dataclasses.replace(
            self.deps,
            runs=self.runs,
            events=SqlEventLog(self.database, self.clock),
            approvals=SqlApprovalStore(self.database, self.clock),
            audit=audit,
            budgets=SqlBudgetLedger(self.database),
            calls=SqlCallLedger(self.database, audit) if together else None,
        )


async def play(world: SqlWorld) -> dict[str, Any]:
    """Success, failures, a stand-in, a denial, a second delivery, an undoing and an empty purse; and all that is left of it."""
    steps = (
        step("a", compensate_with=UNDO),
        step("b", "calc.steady", retry={"max_attempts": 2}),
        step("c", "calc.frail", on_failure="fallback", retry={"max_attempts": 2}),
        step("d", n=3),
        step("skips", on_failure="skip"),
    )
    await world.submit(plan_of(*steps))
    outcomes = [await world.perform("a"), await world.perform("a")]
    for attempt in (1, 2):
        world.invoker.behaviours["calc.steady"] = failing("agent.busy") if attempt == 1 else doubled
        outcomes.append(await world.perform("b", attempt=attempt))
    world.invoker.behaviours["calc.frail"] = failing("agent.broken", retryable=False)
    outcomes += [await world.perform("c"), await world.perform("c", attempt=2)]
    world.invoker.behaviours["calc.double"] = failing("agent.refused", retryable=False)
    outcomes += [await world.perform("skips")]
    task = StepTask(tenant_id="contoso", run_id="run-1", step_id="a")
    outcomes.append(await undo_step(task, world.deps))
    state = await world.deps.budgets.state("contoso", "run-1")
    assert state is not None
    left = state.limit_micro_usd - state.spent_micro_usd
    assert await world.deps.budgets.reserve("contoso", "run-1", "run-1/all", amount_micro_usd=left)
    outcomes.append(await world.perform("d"))
    await world.finish(RunStatus.FAILED)
    events = await world.deps.events.read("contoso", "run-1", after_seq=0, limit=999)
    left_over = {
        "outcomes": outcomes,
        "audit": await world.deps.audit.read("contoso", after_seq=0, limit=999),
        "events": [(one.seq, one.type, one.data) for one in events],
        "steps": await world.runs.steps("contoso", "run-1"),
        "run": await world.runs.get("contoso", "run-1"),
        "money": await world.deps.budgets.state("contoso", "run-1"),
    }
    await world.database.dispose()
    return left_over


async def test_the_same_plan_leaves_the_same_evidence_written_together_and_in_turn(tmp_path: Path) -> None:
    found = []
    keys = MemoryRunKeys()  # the same keys in both, or no commitment could be compared
    for together in (True, False):
        folder = tmp_path / str(together)
        folder.mkdir()
        found.append(await play(SqlWorld(folder, keys, tmp_path, together=together)))
    one, other = found
    for part in one:
        assert one[part] == other[part], part
    assert not verify(one["audit"], "contoso")
    kinds = [record.type.value for record in one["audit"]]
    assert kinds.count("dispatch.intended") == 7
    assert kinds.count("dispatch.result") == 7
    assert all("committed_with" in record.body for record in one["audit"] if record.type.value == "dispatch.intended")


class Behind(NoCheckpoints):
    """Cannot anchor anything."""

    async def make(self, tenant_id: str) -> Any:
        raise OSError("no anchor")


@pytest.mark.parametrize("together", [True, False])
async def test_an_intent_that_cannot_be_anchored_keeps_the_effect_from_happening(
    tmp_path: Path, together: bool
) -> None:
    world = SqlWorld(tmp_path, MemoryRunKeys(), tmp_path, together=together)
    world.deps = dataclasses.replace(world.deps, checkpoints=Behind())
    await world.submit(plan_of(step("a", "mail.send"), step("b")))
    assert await world.perform("a") == Failed(code="audit.unavailable", retryable=True)
    assert world.invoker.calls == []
    state = await world.deps.budgets.state("contoso", "run-1")
    assert state is not None
    assert state.reserved_micro_usd == 0
    assert await world.perform("b") == Succeeded()
    await world.database.dispose()


async def test_a_database_that_fails_once_before_the_call_is_told_and_once_after_it_is_not(tmp_path: Path) -> None:
    world = SqlWorld(tmp_path, MemoryRunKeys(), tmp_path, together=True)
    await world.submit(plan_of(step("a", retry={"max_attempts": 2})))
    ledger: Any = world.deps.calls
    failures = ["before", "after"]

    def failing_once(name: str, real: Any) -> Any:
        def write(*args: Any) -> Any:
            if failures and failures[0] == name:
                failures.pop(0)
                raise LivoaError("store.unavailable", "not now", status=503)
            return real(*args)

        return write

    ledger._open = failing_once("before", ledger._open)
    ledger._close = failing_once("after", ledger._close)
    assert await world.perform("a") == Failed(code="audit.unavailable", retryable=True)
    assert world.invoker.calls == []
    assert await world.perform("a", attempt=2) == Succeeded()
    assert len(world.invoker.calls) == 1
    assert failures == []
    await world.database.dispose()


class Overtaken:
    """Circuits that let a first attempt through only after the second one has made the call."""

    def __init__(self, world: SqlWorld) -> None:
        self._world, self._inner = world, world.deps.circuits

    async def permit(self, tenant: Any, capability: Any, key: str) -> Any:
        if key.endswith("#1"):
            assert await self._world.perform("a", attempt=2) == Succeeded()
        return await self._inner.permit(tenant, capability, key)

    async def report(self, passed: Any, outcome: Any) -> Any:
        return await self._inner.report(passed, outcome)


@pytest.mark.parametrize("together", [True, False])
async def test_a_delivery_that_was_overtaken_suspends_no_run_over_the_money_that_the_later_one_spent(
    tmp_path: Path, together: bool
) -> None:
    world = SqlWorld(tmp_path, MemoryRunKeys(), tmp_path, together=together)
    await world.submit(plan_of(step("a", retry={"max_attempts": 2})))
    state = await world.deps.budgets.state("contoso", "run-1")
    assert state is not None
    left = state.limit_micro_usd - state.spent_micro_usd - 100  # what one call costs
    assert await world.deps.budgets.reserve("contoso", "run-1", "run-1/all", amount_micro_usd=left)
    world.deps = dataclasses.replace(world.deps, circuits=Overtaken(world))
    assert await world.perform("a") == Succeeded()
    run = await world.runs.get("contoso", "run-1")
    assert run is not None
    assert (run.status, run.cost_micro_usd) == (RunStatus.RUNNING, 100)
    assert len(world.invoker.calls) == 1
    await world.database.dispose()
