"""One call of a run, carried out apart from the run's own history: do it, then tell its outcome to whoever waits for it.

The outcome is this instance's output as well, so whoever did not hear it can look it up.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from engine.domain import names
from engine.scheduler.answers import step_crash
from orchestrators.calls import schedule_work

if TYPE_CHECKING:
    from azure.durable_functions import DurableOrchestrationContext

TELLINGS = 5
"""How often telling is tried, ever later. After that the run finds out when it looks for it."""
FIRST_PAUSE_S = 2.0


def step_orchestrator(context: DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Input: ``{"waiter", "call", "work"}``, as ``start_steps`` makes it. Output: a step outcome as JSON."""
    given = context.get_input()
    try:
        outcome = yield schedule_work(context, given["work"])
    except Exception:  # the SDK raises what crossed the durable border as this
        outcome = step_crash().model_dump(mode="json", exclude_none=True)
    told = {"waiter": given["waiter"], "call": given["call"], "outcome": outcome}
    for telling in range(TELLINGS):
        try:
            yield context.call_activity(names.TELL_OUTCOME, told)
            break
        except Exception:  # as above
            pause = timedelta(seconds=FIRST_PAUSE_S * 4**telling)
            yield context.create_timer(context.current_utc_datetime + pause)
    return dict(outcome) if isinstance(outcome, dict) else {}
