"""One part of a map: at most a hundred items of one step. The loop is `shell.drive`, the brain `engine.scheduler.part`."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from engine.scheduler import PartState, decide_part, evolve_part, new_part
from orchestrators.calls import PartCalls, part_ref
from orchestrators.shell import Pool, drive

if TYPE_CHECKING:
    from azure.durable_functions import DurableOrchestrationContext


def map_orchestrator(context: DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Input: what `calls.part_input` makes. Output: a step outcome as JSON."""
    ref = part_ref(context.get_input())

    def show(state: PartState) -> None:
        done = ref.count - state.board.unfinished
        context.set_custom_status({"status": "running", "done": done, "total": ref.count})

    pool = Pool(context, PartCalls(context, ref))
    state = yield from drive(context, new_part(ref), decide_part, evolve_part, pool, show)
    return dict(state.outcome.model_dump(mode="json", exclude_none=True))
