"""The run store as a state machine: whatever is done, in whatever order and however often, memory and a database agree.

With Cosmos DB, answers are lost and requests are turned away in between: nobody may notice.
Agreement alone would not notice a rule that both break, so what must hold of a run is stated here again.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.adapters.memory import MemoryEventLog, MemoryRunStore
from engine.domain.errors import LivoaError
from engine.domain.run import ErrorInfo, StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import NOON, claim, event, ref, run, step
from tests.contract.stores.conftest import CosmosWorld, Stores, new_cosmos, sql_stores
from tests.support.cosmos_fake import Fault

TENANTS = st.sampled_from(["contoso", "fabrikam"])
RUN_IDS = st.sampled_from(["run-1", "run-2", "run-3"])
STATUSES = st.sampled_from(sorted(RunStatus))
EVENTS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=3)
COSTS = st.sampled_from([0, 0, 5])
CHANGES = st.builds(
    RunChange,
    status=st.none() | STATUSES,
    plan_hash=st.none() | st.sampled_from(["p", "q"]),
    plan_version=st.none() | st.integers(1, 3),
    answer_ref=st.none() | st.just(ref("answer")),
    error=st.none() | st.builds(ErrorInfo, code=st.sampled_from(["x", "y"]), message=st.just("")),
    finished_at=st.none() | st.just(NOON),
    add_cost_micro_usd=COSTS,
)
STEPS = st.builds(
    step,
    step_id=st.sampled_from(["s", "t"]),
    run_id=RUN_IDS,
    tenant_id=TENANTS,
    status=st.sampled_from(sorted(StepStatus)),
    attempt=st.integers(1, 3),
    item=st.none() | st.integers(0, 1),
)


class RunStores(RuleBasedStateMachine):
    """Two stores, one history."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.stored = self.opened()
        self.memory = MemoryRunStore(self.stored.clock)
        self.memory_events = MemoryEventLog(self.memory)
        self.final: dict[tuple[str, str], RunStatus] = {}
        self.final_steps: dict[tuple[Any, ...], StepRecord] = {}
        self.cursor: tuple[str, str] | None = None

    def opened(self) -> Stores:
        """The stores under test."""
        self.directory = tempfile.TemporaryDirectory()
        return sql_stores(f"sqlite:///{Path(self.directory.name) / 'livoa.db'}")

    def closed(self) -> None:
        if self.stored.database is not None:
            self.loop.run(self.stored.database.dispose())
        self.directory.cleanup()

    def teardown(self) -> None:
        self.closed()
        self.loop.close()

    def both(self, ask: Callable[[Stores], Awaitable[Any]]) -> Any:
        memory = replace(self.stored, runs=self.memory, events=self.memory_events)
        answers = [self.loop.run(self.answer(ask(stores))) for stores in (memory, self.stored)]
        assert answers[0] == answers[1]
        return answers[1]

    @staticmethod
    async def answer(asked: Awaitable[Any]) -> Any:
        try:
            return await asked
        except LivoaError as err:
            return err.code

    @rule(
        tenant=TENANTS,
        run_id=RUN_IDS,
        minute=st.integers(0, 2),
        key=st.none() | st.sampled_from(["k", "l"]),
        request=st.sampled_from(["{}", "other"]),
        events=EVENTS,
    )
    def create(self, tenant: str, run_id: str, minute: int, key: str | None, request: str, events: list[str]) -> None:
        new = run(run_id, tenant, minute=minute, request_ref=ref(request))
        claimed = claim(key, request) if key else None
        self.both(lambda stores: stores.runs.create(new, list(map(event, events)), claimed))

    @rule(
        tenant=TENANTS,
        run_id=RUN_IDS,
        change=CHANGES,
        events=EVENTS,
        only_from=st.none() | st.frozensets(STATUSES, max_size=3),
    )
    def change(
        self, tenant: str, run_id: str, change: RunChange, events: list[str], only_from: frozenset[RunStatus] | None
    ) -> None:
        self.both(
            lambda stores: stores.runs.change(tenant, run_id, change, list(map(event, events)), only_from=only_from)
        )

    @rule(record=STEPS, events=EVENTS, cost=COSTS)
    def put_step(self, record: StepRecord, events: list[str], cost: int) -> None:
        self.both(lambda stores: stores.runs.put_step(record, list(map(event, events)), add_cost_micro_usd=cost))

    @rule(tenant=TENANTS, run_id=RUN_IDS, events=EVENTS)
    def append(self, tenant: str, run_id: str, events: list[str]) -> None:
        self.both(lambda stores: stores.events.append(tenant, run_id, list(map(event, events))))

    @rule(tenant=TENANTS, status=st.none() | STATUSES, limit=st.integers(1, 3))
    def first_page(self, tenant: str, status: RunStatus | None, limit: int) -> None:
        page = self.both(lambda stores: stores.runs.page(tenant, status=status, cursor=None, limit=limit))
        self.cursor = (tenant, page.next_cursor) if page.next_cursor and status is None else None

    @precondition(lambda self: self.cursor is not None)
    @rule()
    def next_page(self) -> None:
        assert self.cursor is not None
        tenant, cursor = self.cursor
        self.both(lambda stores: stores.runs.page(tenant, status=None, cursor=cursor, limit=2))

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.stored.clock.advance(seconds)

    @rule(limit=st.integers(1, 4))
    def unfinished(self, limit: int) -> None:
        runs = self.both(lambda stores: stores.runs.unfinished(limit))
        assert not any(r.status.is_final for r in runs)

    @rule(tenant=TENANTS, run_id=RUN_IDS)
    def look(self, tenant: str, run_id: str) -> None:
        found = self.both(lambda stores: stores.runs.get(tenant, run_id))
        if found is None:
            return
        assert self.final.get((tenant, run_id), found.status) is found.status
        if found.status.is_final:
            self.final[tenant, run_id] = found.status
        steps = self.both(lambda stores: stores.runs.steps(tenant, run_id))
        items = self.both(lambda stores: stores.runs.items(tenant, run_id, "s"))
        for record in (*steps, *items):
            key = (tenant, run_id, record.step_id, record.item)
            assert self.both(lambda stores, k=key: stores.runs.get_step(*k)) == record
            assert self.final_steps.get(key, record) == record
            if record.status.is_final:
                self.final_steps[key] = record

    @invariant()
    def logs_are_gapless_and_agree(self) -> None:
        events = self.both(lambda stores: stores.events.read("contoso", "run-1", after_seq=0, limit=1000))
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        assert len(events) <= 6, "a key was appended twice"


class RunStoresInCosmos(RunStores):
    """The same over a Cosmos DB on a bad day."""

    def opened(self) -> Stores:
        self.world = new_cosmos()
        cosmos: CosmosWorld = self.loop.run(self.world.__aenter__())
        self.faults = cosmos.fake.faults
        return cosmos.open()

    def closed(self) -> None:
        self.loop.run(self.world.__aexit__(None, None, None))

    @rule(
        kind=st.sampled_from(["lost_answer", "lost_connection", "timed_out", "retry_with", "throttled"]),
        times=st.integers(1, 2),
    )
    def a_bad_moment(self, kind: Any, times: int) -> None:
        # Three in a row is what a store makes up for; more of them is an outage, which is another test's.
        if sum(fault.times for fault in self.faults.pending) + times <= 3:
            self.faults.add(Fault(kind, "batch", times))


TestRunStoresInCosmos = RunStoresInCosmos.TestCase
TestRunStoresInCosmos.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)
TestRunStores = RunStores.TestCase
TestRunStores.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
