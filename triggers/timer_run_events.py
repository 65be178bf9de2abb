"""The relay: every five seconds, send other systems what runs have put into the outbox, each run's events in order.

An event is taken out only after the bus has it, so a crash between the two sends it again under the same id. A timer trigger
runs in one instance of the app at a time; should two ever overlap, events are sent twice and each consumer takes an id once.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from engine.domain.errors import LivoaError
from engine.domain.run_messages import RUN_EVENTS_TOPIC
from engine.ports.deps import Deps, DepsProvider
from engine.ports.run_messages import WaitingRun

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

SCHEDULE = "*/5 * * * * *"
MAX_RUNS = 200
"""Runs looked up at once."""
MAX_EVENTS = 50
"""Events of one run sent at once: some ten kilobytes, far below what a message may have."""
LONGEST_S = 60.0
"""After so long a pass leaves the rest to the next."""

_LOG = logging.getLogger("livoa.bus")


@dataclass(frozen=True, slots=True)
class RelayReport:
    """What one pass did. ``is_unavailable`` says that the bus could not be reached and the rest waits."""

    sent: int = 0
    failed_runs: int = 0
    is_unavailable: bool = False


async def relay(deps: Deps) -> RelayReport:
    """Send what waits, until nothing does, the bus is away or the time is up. One run's failure does not hold up the others."""
    end_at = deps.clock.now() + timedelta(seconds=LONGEST_S)
    counts: Counter[str] = Counter()
    failed: set[WaitingRun] = set()
    while True:
        runs = [run for run in await deps.outbox.runs_waiting(MAX_RUNS) if run not in failed]
        for run in runs:
            if deps.clock.now() >= end_at:
                return _report(counts, failed)
            try:
                counts["sent"] += await _tell(run, deps)
            except LivoaError as err:
                if err.code.startswith("bus."):
                    _LOG.warning("events wait for the bus", extra={"topic": RUN_EVENTS_TOPIC, "code": err.code})
                    return _report(counts, failed, is_unavailable=True)
                _failed(run, failed)
            except Exception:
                _failed(run, failed)
        if not runs:
            return _report(counts, failed)


async def _tell(run: WaitingRun, deps: Deps) -> int:
    """Send the next events of one run, and take them out."""
    events = await deps.outbox.waiting(run.tenant_id, run.run_id, MAX_EVENTS)
    if not events:
        return 0
    await deps.run_events.publish(events)
    await deps.outbox.told(run.tenant_id, run.run_id, through_seq=events[-1].seq)
    return len(events)


def _failed(run: WaitingRun, failed: set[WaitingRun]) -> None:
    failed.add(run)
    _LOG.warning("events of a run could not be sent", exc_info=True, extra={"run_id": run.run_id})


def _report(counts: Counter[str], failed: set[WaitingRun], *, is_unavailable: bool = False) -> RelayReport:
    report = RelayReport(counts["sent"], len(failed), is_unavailable)
    if report.sent or report.failed_runs:
        _LOG.info("relay: sent %d events, %d runs failed", report.sent, report.failed_runs)
    return report


def build(deps: DepsProvider) -> Blueprint:
    """The blueprint of the timer."""
    from azure.durable_functions import Blueprint
    from azure.functions import TimerRequest

    async def relay_run_events(timer: Any) -> None:
        await relay(deps())

    relay_run_events.__annotations__ = {"timer": TimerRequest, "return": None}
    blueprint = Blueprint()
    blueprint.timer_trigger(arg_name="timer", schedule=SCHEDULE, run_on_startup=False, use_monitor=False)(
        relay_run_events
    )
    return blueprint
