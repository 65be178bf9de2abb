"""What a run needs of the sweep while the clock is set forwards and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.domain.principal import Principal
from engine.domain.run import PayloadRef, Run
from engine.domain.status import RunStatus
from triggers.timer_sweep import EVERY_S, REMIND_AT_MOST_S, care_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(status: RunStatus, updated_at: datetime) -> Run:
    return Run(
        tenant_id="contoso", run_id="run-1", status=status, title="t",
        request_ref=PayloadRef(sha256="0" * 64, size_bytes=1),
        principal=Principal(tenant_id="contoso", subject="tid:ana", kind="user", client_app="cli"),
        created_at=updated_at, updated_at=updated_at, deadline_at=updated_at + timedelta(days=2),
    )  # fmt: skip


@pytest.mark.parametrize("away", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_run_that_never_started_is_started_wherever_the_clock_was_set(away: timedelta) -> None:
    assert care_for(run(RunStatus.ACCEPTED, NOW + away), started=False, now=NOW) == "start"


@pytest.mark.parametrize("away_s", [3, -3])
def test_a_young_run_is_left_to_the_request_that_accepted_it(away_s: float) -> None:
    assert care_for(run(RunStatus.ACCEPTED, NOW + timedelta(seconds=away_s)), started=False, now=NOW) == "none"


@pytest.mark.parametrize("away", [timedelta(hours=2), timedelta(hours=-2)])
def test_a_run_that_has_not_heard_of_its_cancel_is_told_wherever_the_clock_was_set(away: timedelta) -> None:
    cancelled = run(RunStatus.CANCELLING, NOW + away)
    cares = [
        care_for(cancelled, started=True, now=NOW + timedelta(seconds=EVERY_S * sweep + 1)) for sweep in range(240)
    ]
    assert 6 <= cares.count("remind") <= 24, "an hour of sweeps"


def test_reminders_end() -> None:
    cancelled = run(RunStatus.CANCELLING, NOW)
    late = NOW + timedelta(seconds=REMIND_AT_MOST_S + 1)
    assert {
        care_for(cancelled, started=True, now=late + timedelta(seconds=EVERY_S * sweep)) for sweep in range(240)
    } == {"none"}
