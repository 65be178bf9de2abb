"""What a run tells others about itself: progress for the status query, statuses of steps for composing and recording.

Ids and codes only; grouped by status, so that five thousand steps cost their ids once.
"""

from __future__ import annotations

from typing import Any

from engine.domain.status import StepStatus
from engine.scheduler.run_state import RunState


def progress(state: RunState) -> dict[str, Any]:
    """``{"status", "done", "total"}``: small and content-free, fit for the durable custom status (limit 16 KiB)."""
    total = len(state.board.graph.steps) if state.board else 0
    return {
        "status": str(state.status),
        "done": total - state.board.unfinished if state.board else 0,
        "total": total,
    }


def step_report(state: RunState) -> dict[str, Any]:
    """``{"steps": {status: [step id, …]}, "codes": {step id: code}}`` in plan order; empty without a plan."""
    by_status: dict[str, list[str]] = {}
    codes: dict[str, str] = {}
    if state.board is not None:
        for spec, record in zip(state.board.graph.steps, state.board.records(), strict=True):
            by_status.setdefault(str(record.status), []).append(spec.id)
            if record.status is not StepStatus.SUCCEEDED and record.code is not None:
                codes[spec.id] = record.code
    return {"steps": by_status, "codes": codes}


def not_undone(state: RunState) -> dict[str, str]:
    """Codes by the ids of the steps whose effects still stand although they should have been undone."""
    if state.board is None:
        return {}
    return {state.board.graph.steps[step].id: code for step, code in state.not_undone}
