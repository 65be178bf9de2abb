"""The rules every run store applies, as pure functions: what a change makes of a run, and which step record may replace which.

Adapters differ in how they make a write atomic, never in what it means. Nothing here stores anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.errors import ConflictError, LivoaError, NotFoundError
from engine.domain.events import NewEvent
from engine.domain.run import PlanVersion, Run, StepRecord
from engine.domain.status import FINAL_RUN_STATUSES, RunStatus, StepStatus
from engine.ports.run_store import MAX_COUNTED, RunChange, RunCounts

MAX_LIMIT = 1_000
"""Most rows one read returns, whatever the caller asks for."""
FINAL_STATUSES = tuple(sorted(status.value for status in FINAL_RUN_STATUSES))
"""As they are stored."""
NO_ITEM = -1
"""Stands for "no item" where a key must not be null."""


def bounded(limit: int) -> int:
    """``limit`` confined to 1..MAX_LIMIT."""
    return max(1, min(limit, MAX_LIMIT))


def counted(newest: Sequence[RunStatus]) -> RunCounts:
    """The counts over statuses, newest run first, of which there may be one more than are counted."""
    return RunCounts(Counter(newest[:MAX_COUNTED]), is_complete=len(newest) <= MAX_COUNTED)


def run_not_found(run_id: str) -> NotFoundError:
    """The one answer for an absent run and for another tenant's."""
    return NotFoundError("run.not_found", f"there is no run {run_id}")


def not_finished(run: Run) -> ConflictError:
    """Why a run that is not over cannot go."""
    return ConflictError("run.not_finished", f"the run is {run.status.value}; only a run that is over can be erased")


def same_request(existing: Run, run: Run) -> bool:
    """True when creating ``run`` again is the same request of the same subject: a create that was delivered twice."""
    return existing.request_ref == run.request_ref and existing.principal.subject == run.principal.subject


def changed(
    run: Run, change: RunChange, now: datetime, *, only_from: frozenset[RunStatus] | None, repeated: bool
) -> Run:
    """The run after a change.

    ``repeated`` says that all events of the change were known already: the cost has been counted then. A finished run keeps
    its status, its time and its error; finishing it the same way again changes none of them.
    Raises ``ConflictError`` with ``run.conflict`` or ``run.finished``.
    """
    if only_from is not None and run.status not in only_from:
        raise ConflictError("run.conflict", f"the run is {run.status.value}")
    if run.status.is_final and change.status not in (None, run.status):
        raise ConflictError("run.finished", f"the run is {run.status.value} and stays so")
    fields: dict[str, Any] = {
        "status": change.status,
        "plan_ref": change.plan_ref,
        "plan_hash": change.plan_hash,
        "plan_version": change.plan_version,
        "provenance": change.provenance,
        "proposed_plan": change.proposed_plan,
        "repairs_decided": change.repairs_decided,
        "answer_ref": change.answer_ref,
        "degraded_reason": change.degraded_reason,
        "error": change.error,
        "finished_at": change.finished_at,
        "suspended_reason": change.suspended_reason,
    }
    update = {name: value for name, value in fields.items() if value is not None}
    for version in (change.proposed_plan, change.next_plan):
        if version is not None and version.plan_version != run.plan_version + 1:
            raise ConflictError("run.conflict", f"the plan in force is version {run.plan_version}")
    if change.repairs_decided is not None and change.repairs_decided <= run.repairs_decided:
        raise ConflictError("run.conflict", f"repair {change.repairs_decided} is decided already")
    if change.next_plan is not None:
        update |= _replanned(run, change.next_plan)
    if run.answer_ref is not None:
        update.pop("answer_ref", None)  # of two deliveries of the same work the first one's answer stands
    if run.status.is_final:
        for name in ("error", "finished_at"):
            update.pop(name, None)
    if change.status is RunStatus.SUSPENDED and run.status is not RunStatus.SUSPENDED:
        update["suspensions"] = run.suspensions + 1
    cost = run.cost_micro_usd + (0 if repeated else change.add_cost_micro_usd)
    return Run(**(dict(run) | update | {"cost_micro_usd": cost, "version": run.version + 1, "updated_at": now}))


def _replanned(run: Run, version: PlanVersion) -> dict[str, Any]:
    """What a new version of the plan changes; the one in force is kept as an earlier one."""
    replaced = (run.plan_in_force,) if run.plan_in_force is not None else ()
    return {
        "plan_ref": version.plan_ref,
        "plan_hash": version.plan_hash,
        "plan_version": version.plan_version,
        "provenance": version.provenance,
        "plan_repair": version.repair,
        "earlier_plans": (*run.earlier_plans, *replaced),
        "proposed_plan": None,
    }


def resumed(run: Run, record: StepRecord, now: datetime) -> Run | None:
    """The run, no longer waiting for people alone, when ``record`` says that a step of it has started; None otherwise."""
    if run.status is not RunStatus.AWAITING_APPROVAL or record.status is not StepStatus.RUNNING:
        return None
    return changed(run, RunChange(status=RunStatus.RUNNING), now, only_from=None, repeated=False)


def replaces(stored: StepRecord | None, record: StepRecord) -> bool:
    """True when ``record`` may take the place of ``stored``: nothing is final yet, and the attempt is not an earlier one."""
    return stored is None or follows(stored.status, stored.attempt, record)


def follows(status: StepStatus, attempt: int, record: StepRecord) -> bool:
    """``replaces``, by what a stored record says of status and attempt."""
    return not status.is_final and record.attempt >= attempt


def is_over(status: str) -> bool:
    """True for the stored status of a run that has ended: its steps and its events are closed."""
    return RunStatus(status).is_final


def unfinished_among(statuses: frozenset[RunStatus] | None) -> list[str]:
    """The statuses of runs that are not over, of all or of those asked for."""
    wanted = frozenset(RunStatus) if statuses is None else statuses
    return sorted(status.value for status in wanted - FINAL_RUN_STATUSES)


def distinct(events: Sequence[NewEvent]) -> dict[str, NewEvent]:
    """Events by key, the first of each key, in order."""
    by_key: dict[str, NewEvent] = {}
    for event in events:
        by_key.setdefault(event.key, event)
    return by_key


def event_data_text(event: NewEvent) -> str:
    """An event's data as compact ASCII JSON. Raises ``LivoaError("event.data_invalid")`` when it is no JSON."""
    return _json_text(event.data, "event.data_invalid", f"data of event {event.type.value} is not JSON")


def event_data(text: str) -> JsonObject:
    """The inverse of ``event_data_text``."""
    data: JsonObject = json.loads(text)
    return data


def _json_text(value: JsonObject, code: str, message: str) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as err:
        raise LivoaError(code, message, status=500) from err
