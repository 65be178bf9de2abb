"""One run, from accepted to recorded. The loop is `shell.drive`, the brain is `engine.scheduler`."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from engine.scheduler import AdmittedState, decide_admitted, evolve_admitted, progress_admitted
from orchestrators.calls import RunCalls, begun, handed_on, hold, lease_terms, roll_after, run_ref
from orchestrators.generations import Generation
from orchestrators.shell import Pool, drive

if TYPE_CHECKING:
    from azure.durable_functions import DurableOrchestrationContext

logger = logging.getLogger("livoa.runs")


def run_orchestrator(context: DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any] | None]:
    """Input: ``{"tenant_id", "run_id", "deadline_at", "v"?, "quota"?, "roll_after"?, "hold_ms"?, "generation"?}``. Output:
    ``{"status", "code", "recorded"}``, of the last history of the run."""
    given = context.get_input()
    ref, terms, limit = run_ref(given), lease_terms(given), roll_after(given)
    number, state = begun(given)
    calls = RunCalls(context, ref, terms)
    pool: Pool[AdmittedState] = Pool(context, calls)
    if limit is not None:
        pool = Generation(context, calls, limit, number, state, hold(given))

    def show(state: AdmittedState) -> None:
        context.set_custom_status(progress_admitted(state))

    admitted = yield from drive(context, state, decide_admitted, evolve_admitted, pool, show)
    if not admitted.is_over:
        context.continue_as_new(handed_on(given, number + 1, admitted))
        return None
    calls.release()
    run = admitted.run
    status, code = run.ending if run.ending is not None else (run.status, None)
    if not context.is_replaying:
        logger.info("run over", extra={"run_id": ref.run_id, "status": str(status), "code": code})
    return {"status": str(status), "code": code, "recorded": run.recorded}
