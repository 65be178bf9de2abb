"""One run, from accepted to recorded. The loop is `shell.drive`, the brain is `engine.scheduler`."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from engine.scheduler import AdmittedState, decide_admitted, evolve_admitted, new_admitted, progress_admitted
from orchestrators.calls import RunCalls, lease_terms, run_ref
from orchestrators.shell import drive

if TYPE_CHECKING:
    from azure.durable_functions import DurableOrchestrationContext

logger = logging.getLogger(__name__)


def run_orchestrator(context: DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Input: ``{"tenant_id", "run_id", "deadline_at", "quota"?}``. Output: ``{"status", "code", "recorded"}``."""
    given = context.get_input()
    ref, terms = run_ref(given), lease_terms(given)
    calls = RunCalls(context, ref, terms)

    def show(state: AdmittedState) -> None:
        context.set_custom_status(progress_admitted(state))

    begun = new_admitted(ref, terms)
    admitted = yield from drive(context, begun, decide_admitted, evolve_admitted, calls, show)
    calls.release()
    state = admitted.run
    status, code = state.ending if state.ending is not None else (state.status, None)
    if not context.is_replaying:
        logger.info("run over", extra={"run_id": ref.run_id, "status": str(status), "code": code})
    return {"status": str(status), "code": code, "recorded": state.recorded}
