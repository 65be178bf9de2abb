"""Runs, their steps and their events: one consistency boundary, because an event is written with the change it reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from engine.domain.events import NewEvent, RunEvent
from engine.domain.run import ErrorInfo, PayloadRef, PlanProvenance, PlanVersion, Run, StepRecord
from engine.domain.status import RunStatus


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A caller's Idempotency-Key and the SHA-256 of the canonical request it came with. Scoped to tenant and subject."""

    key: str
    request_sha256: str


@dataclass(frozen=True, slots=True)
class CreateResult:
    """``created``: the run is new. ``existing``: same key, same request; ``run`` is the first one. ``mismatch``: same key,
    other request; nothing was written."""

    outcome: Literal["created", "existing", "mismatch"]
    run: Run


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs of a tenant: of a status, created at or after ``since`` and before ``until`` (aware). None narrows nothing."""

    status: RunStatus | None = None
    since: datetime | None = None
    until: datetime | None = None


ALL_RUNS = RunFilter()
MAX_COUNTED = 10_000
"""How many runs are looked at for one answer to ``RunStore.counts``: the newest ones."""


@dataclass(frozen=True, slots=True)
class RunCounts:
    """How many runs stand where; a status without runs is absent. ``is_complete`` is false when there are more than were counted,
    which are then the newest ``MAX_COUNTED``."""

    by_status: Mapping[RunStatus, int]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of runs, newest first, and the cursor of the next page (None at the end)."""

    runs: tuple[Run, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class RunChange:
    """Fields to set; None leaves a field as it is.

    ``proposed_plan`` is a version of the plan that is not in force yet. ``next_plan`` replaces the plan in force, which has to be
    of the version before it: of two writers at once the first one's version stands. So it is
    for ``repairs_decided``: a repair that was accepted or refused stays so.
    """

    status: RunStatus | None = None
    plan_ref: PayloadRef | None = None
    plan_hash: str | None = None
    plan_version: int | None = None
    provenance: PlanProvenance | None = None
    proposed_plan: PlanVersion | None = None
    next_plan: PlanVersion | None = None
    repairs_decided: int | None = None
    answer_ref: PayloadRef | None = None
    degraded_reason: str | None = None
    error: ErrorInfo | None = None
    finished_at: datetime | None = None
    suspended_reason: Literal["request", "budget"] | None = None
    add_cost_micro_usd: int = 0


class RunStore(Protocol):
    """Runs and steps of tenants. All writes are atomic together with the events handed in; events with a known key are
    not appended again. Unknown run: ``NotFoundError("run.not_found")``."""

    async def create(self, run: Run, events: Sequence[NewEvent], claim: IdempotencyClaim | None) -> CreateResult:
        """Insert a run and its first events, or find the run of the same claim.

        The run id is a key too: creating a run again is ``existing`` for the same request of the same subject, and
        ``mismatch`` otherwise.
        """
        ...

    async def get(self, tenant_id: str, run_id: str) -> Run | None:
        """The run, or None when it is absent or another tenant's."""
        ...

    async def page(
        self,
        tenant_id: str,
        *,
        status: RunStatus | None,
        cursor: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> RunPage:
        """Runs of a tenant, newest first, keyset paging; narrowed as by ``RunFilter``. A malformed cursor, or one of another
        tenant or filter: ``LivoaError("cursor.invalid")``."""
        ...

    async def counts(self, tenant_id: str, which: RunFilter = ALL_RUNS) -> RunCounts:
        """How many runs of a tenant stand where. At most ``MAX_COUNTED`` are looked at."""
        ...

    async def change(
        self,
        tenant_id: str,
        run_id: str,
        change: RunChange,
        events: Sequence[NewEvent] = (),
        *,
        only_from: frozenset[RunStatus] | None = None,
    ) -> Run:
        """Apply a change. With ``only_from``, a run in another status is left alone: ``ConflictError("run.conflict")``; so is
        one whose plan is not of the version before ``proposed_plan`` or ``next_plan``, or whose repair is decided already.

        A run in a final status never leaves it: a change of status then raises ``ConflictError("run.finished")``; finishing it
        again the same way keeps the first ``finished_at`` and ``error``. Cost is added unless every event handed in was known
        already: then the change was delivered before, and counted. Suspending is counted in ``suspensions``.
        """
        ...

    async def put_step(self, step: StepRecord, events: Sequence[NewEvent] = (), *, add_cost_micro_usd: int = 0) -> bool:
        """Write the latest state of a step or item, and its events, in one transaction.

        Returns False and writes nothing when the stored record is final or belongs to a later attempt, or when the run is
        over: a late or repeated result changes nothing, and nothing starts in a run that has ended.
        Cost is added as in ``change``.
        """
        ...

    async def get_step(self, tenant_id: str, run_id: str, step_id: str, item: int | None = None) -> StepRecord | None:
        """One step's (or item's) latest record, or None."""
        ...

    async def get_with_step(
        self, tenant_id: str, run_id: str, step_id: str, item: int | None = None
    ) -> tuple[Run | None, StepRecord | None]:
        """``get`` and ``get_step`` in one: what everything about a step begins with. A step without a run is no step.

        Of a run that is ending the step is no older than the run: what was done before a cancel is not taken for undone."""
        ...

    async def steps(self, tenant_id: str, run_id: str) -> tuple[StepRecord, ...]:
        """All step records of a run without the items of maps, in order of step id."""
        ...

    async def items(self, tenant_id: str, run_id: str, step_id: str) -> tuple[StepRecord, ...]:
        """The item records of one map, in order of item."""
        ...

    async def unfinished(self, limit: int, *, statuses: frozenset[RunStatus] | None = None) -> tuple[Run, ...]:
        """Runs of any tenant that are not final, oldest first: what recovery looks at. Not reachable from any route.

        ``statuses`` narrows them, so that many runs under way cannot hide a few that need care.
        """
        ...


class EventLog(Protocol):
    """The ordered, gapless log of each run. ``seq`` counts from 1 and is valid for the run's whole retention."""

    async def append(self, tenant_id: str, run_id: str, events: Sequence[NewEvent]) -> tuple[RunEvent, ...]:
        """Append events that have no state change of their own (progress, answer deltas).

        Known keys are skipped, and so is everything once the run is over: its final event is the last one.
        """
        ...

    async def read(self, tenant_id: str, run_id: str, *, after_seq: int, limit: int) -> tuple[RunEvent, ...]:
        """Events with ``seq > after_seq``, in order."""
        ...

    async def wait(self, tenant_id: str, run_id: str, *, after_seq: int, timeout_s: float) -> bool:
        """Return True as soon as an event after ``after_seq`` exists, False when ``timeout_s`` passed first."""
        ...
