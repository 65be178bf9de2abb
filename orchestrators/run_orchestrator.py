"""One run, from accepted to recorded. The loop is `shell.drive`, the brain is `engine.scheduler`."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from engine.scheduler import RunState, decide, evolve, new_run, progress
from orchestrators.calls import RunCalls, run_ref
from orchestrators.shell import drive

if TYPE_CHECKING:
    from azure.durable_functions import DurableOrchestrationContext

logger = logging.getLogger(__name__)


def run_orchestrator(context: DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Input: ``{"tenant_id", "run_id", "deadline_at"}``. Output: ``{"status", "code", "recorded"}``."""
    ref = run_ref(context.get_input())

    def show(state: RunState) -> None:
        context.set_custom_status(progress(state))

    state = yield from drive(context, new_run(ref), decide, evolve, RunCalls(context, ref), show)
    status, code = state.ending if state.ending is not None else (state.status, None)
    if not context.is_replaying:
        logger.info("run over", extra={"run_id": ref.run_id, "status": str(status), "code": code})
    return {"status": str(status), "code": code, "recorded": state.recorded}
