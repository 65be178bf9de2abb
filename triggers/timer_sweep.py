"""The sweep: every 15 seconds, start accepted runs that never started, remind cancelled ones, repeat answers of people that the
run they were for has not heard, and look after the steps that workers have.

It makes up for crashes and lost events, nothing else: a run that is under way is the orchestration's business.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from engine.domain.approval import Approval
from engine.domain.errors import LivoaError
from engine.domain.run import Run
from engine.domain.status import RunStatus, StepStatus
from engine.domain.tenant import Quota
from engine.ports.deps import Deps, DepsProvider
from triggers.http_adapter import CLIENT_PARAMETER, DurableClient
from triggers.starting import ask_to_cancel, is_started, start, tell_answer
from triggers.timer_step_care import BusCare, care_for_steps

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

SCHEDULE = "*/15 * * * * *"
MAX_RUNS = 1_000
GRACE_S = 10.0
"""Younger runs are still in the hands of the request that accepted or cancelled them."""
REMIND_FOR_S = 120.0
"""How long a run is reminded of a cancel or of an answer; every reminder is an entry in its history, so there is an end to it."""
REMIND_LATER_EVERY_S, REMIND_AT_MOST_S = 300.0, 86_400.0
"""A run that is still cancelling is reminded now and then for a day: whoever should have told it may have been away for longer
than the first reminders last, or the clock was set meanwhile."""
EVERY_S = 15.0

CARED_FOR = frozenset({RunStatus.ACCEPTED, RunStatus.CANCELLING})
"""The statuses in which a run may need help; asking for these alone keeps them visible behind any number under way."""

_LOG = logging.getLogger("livoa.sweep")
Care = Literal["none", "start", "remind"]


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did."""

    looked_at: int = 0
    started: int = 0
    reminded: int = 0
    failed: int = 0
    told: int = 0
    steps: BusCare = field(default_factory=BusCare)


def care_for(run: Run, *, started: bool, now: datetime) -> Care:
    """What a run needs. Pure. A change that is yet to come, as a clock that was set back has it, is as old as it is far away."""
    idle_s = abs((now - run.updated_at).total_seconds())
    if run.status not in CARED_FOR or idle_s < GRACE_S:
        return "none"
    if not started:
        return "start"
    is_due = idle_s < REMIND_FOR_S or (idle_s < REMIND_AT_MOST_S and idle_s % REMIND_LATER_EVERY_S < EVERY_S)
    return "remind" if run.status is RunStatus.CANCELLING and is_due else "none"


async def sweep(deps: Deps, client: DurableClient) -> SweepReport:
    """Look after the oldest unfinished runs. One run's failure does not keep the others waiting."""
    now = deps.clock.now()
    await deps.catalog_watch.look()  # tells the log what has changed
    counts: dict[str, int] = {"none": 0, "start": 0, "remind": 0}
    trouble: Counter[str] = Counter()
    runs = await deps.runs.unfinished(MAX_RUNS, statuses=CARED_FOR)
    for run in runs:
        # Asking the engine costs a call, so it is asked only where an answer could change something.
        if care_for(run, started=False, now=now) == "none":
            continue
        try:
            counts[await _care(run, deps, client, now)] += 1
        except LivoaError as err:  # a full host refuses every one of them, in every sweep
            trouble[err.code] += 1
        except Exception as err:
            trouble[type(err).__name__] += 1
            _LOG.warning("sweep could not help a run", exc_info=True, extra={"run_id": run.run_id})
    if trouble:
        causes = ", ".join(f"{cause} ({count})" for cause, count in sorted(trouble.items()))
        _LOG.warning("sweep: %d runs could not be helped: %s", trouble.total(), causes)
    told = await _repeat_answers(deps, client, now)
    steps = await care_for_steps(deps, client, now)
    report = SweepReport(len(runs), counts["start"], counts["remind"], trouble.total(), told, steps)
    if report.started or report.reminded or report.told:
        _LOG.info("sweep: started %d, reminded %d, told %d answers", report.started, report.reminded, report.told)
    if steps != BusCare():
        _LOG.info(
            "sweep of steps: took back %d, sent %d, told %d, failed %d",
            steps.taken_back, steps.sent, steps.told, steps.failed,
        )  # fmt: skip
    return report


async def _repeat_answers(deps: Deps, client: DurableClient, now: datetime) -> int:
    """Announce again what was answered a moment ago and not taken up; a step that waits longer looks by itself."""
    told = 0
    for approval in await deps.approvals.answered_since(now - timedelta(seconds=REMIND_FOR_S), MAX_RUNS):
        fresh = approval.decided_at is None or abs(now - approval.decided_at) < timedelta(seconds=GRACE_S)
        if not fresh and await _is_unheard(approval, deps):
            told += await tell_answer(approval, client)
    return told


async def _is_unheard(approval: Approval, deps: Deps) -> bool:
    """True while whoever asked has not gone on."""
    binding = approval.binding
    if binding.step_id is None:
        run = await deps.runs.get(approval.tenant_id, approval.run_id)
        return run is not None and not run.plan_version and run.error is None
    record = await deps.runs.get_step(approval.tenant_id, approval.run_id, binding.step_id, binding.item)
    waits = record is not None and record.status is StepStatus.WAITING
    return waits and record is not None and record.approval_id == approval.approval_id


async def _care(run: Run, deps: Deps, client: DurableClient, now: datetime) -> Care:
    care = care_for(run, started=await is_started(run, client), now=now)
    if care == "start":
        tenant = await deps.tenants.get(run.tenant_id)
        await start(run, client, tenant.quota if tenant is not None else Quota())
    elif care == "remind":
        await ask_to_cancel(run, client)
    return care


def build(deps: DepsProvider) -> Blueprint:
    """The blueprint of the timer."""
    from azure.durable_functions import Blueprint
    from azure.functions import TimerRequest

    async def sweep_runs(timer: Any, client: Any) -> None:
        await sweep(deps(), client)

    sweep_runs.__annotations__ = {"timer": TimerRequest, CLIENT_PARAMETER: str, "return": None}
    blueprint = Blueprint()
    function: Any = blueprint.timer_trigger(
        arg_name="timer", schedule=SCHEDULE, run_on_startup=False, use_monitor=False
    )(sweep_runs)
    blueprint.durable_client_input(client_name=CLIENT_PARAMETER)(function)
    return blueprint
