"""The activities that perform steps: thin shells around the step runner."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from engine.domain.outcomes import Failed, StepOutcome
from engine.ports.deps import Deps
from engine.step_runner import StepTask, collect_map, expand_map, perform_step, undo_step

_TASK_FIELDS = ("tenant_id", "run_id", "step_id", "attempt", "item", "waiter")


def _task(payload: dict[str, Any]) -> StepTask | None:
    try:
        return StepTask.model_validate({name: payload[name] for name in _TASK_FIELDS if payload.get(name) is not None})
    except ValidationError:
        return None


def _wire(outcome: StepOutcome) -> dict[str, Any]:
    wire: dict[str, Any] = outcome.model_dump(mode="json", exclude_none=True)
    return wire


_MALFORMED = Failed(code="step.malformed_task")


async def perform(payload: dict[str, Any], deps: Deps) -> dict[str, Any]:
    """Input ``{tenant_id, run_id, step_id, attempt, item?}``; result a ``StepOutcome``."""
    task = _task(payload)
    return _wire(_MALFORMED if task is None else await perform_step(task, deps))


async def expand(payload: dict[str, Any], deps: Deps) -> dict[str, Any]:
    """Input as ``perform``; result ``Expanded`` with the number of items, or another ``StepOutcome``."""
    task = _task(payload)
    return _wire(_MALFORMED if task is None else await expand_map(task, deps))


async def collect(payload: dict[str, Any], deps: Deps) -> dict[str, Any]:
    """Input as ``perform`` with ``item_count``; result the ``StepOutcome`` of the whole map."""
    task = _task(payload)
    count = payload.get("item_count")
    if task is None or not isinstance(count, int):
        return _wire(_MALFORMED)
    return _wire(await collect_map(task, count, deps))


async def undo(payload: dict[str, Any], deps: Deps) -> dict[str, Any]:
    """Input ``{tenant_id, run_id, step_id, attempt}``; result ``{"status": "undone" | "more"}`` or that of a ``Failed``."""
    task = _task(payload)
    outcome = _MALFORMED if task is None else await undo_step(task, deps)
    wire: dict[str, Any] = outcome.model_dump(mode="json", exclude_none=True)
    return wire
