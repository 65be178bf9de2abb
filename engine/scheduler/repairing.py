"""Repairing the plan of a run under way (ADR 0009): when one begins, and what its answer means for the run."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from engine.domain.names import REPAIRS_SINCE
from engine.domain.status import RunStatus
from engine.scheduler.board import Board, Draft
from engine.scheduler.commands import Planned, Refused, RunOutcome
from engine.scheduler.ending import settled, with_cancel
from engine.scheduler.replanning import replanned
from engine.scheduler.run_state import RunState, without_repair
from engine.scheduler.transitions import RunPhase


def may_repair(state: RunState, board: Board) -> bool:
    """True while another repair of the plan may begin."""
    return state.ref.version >= REPAIRS_SINCE and state.repairs < board.graph.skeleton.repairs


def with_repair(state: RunState) -> RunState:
    """Begin the next repair, when none is under way. Without any left, what failed has failed."""
    board = state.board
    if board is None or state.phase is not RunPhase.RUNNING or state.cancelled:
        return state
    if state.repairing is None and board.failing:
        if may_repair(state, board):
            return replace(state, repairs=state.repairs + 1, repairing=board.failing[0][0], attempt=1, look=0)
        draft = Draft(board)
        for step, _ in board.failing:
            draft.let_fail(step)
        draft.look_when_quiet()
        return replace(state, board=draft.frozen())
    if state.held_by is not None and state.retry_at is not None and board.is_quiet:
        # Only people can move the run on now; the store learns it from a look.
        return replace(state, retry_at=None, look=state.look + 1)
    return state


def repair_over(state: RunState, outcome: RunOutcome, at: datetime) -> RunState:
    """Go on with the new version of the plan; without one the step has failed, and the run goes on as it can."""
    board, step = state.board, state.repairing
    state = without_repair(state)
    if board is None or step is None:
        return state
    version = replanned(board, outcome.graph, step) if isinstance(outcome, Planned) and not state.cancelled else None
    draft = Draft(version or board)
    draft.let_fail(step)
    if isinstance(outcome, Refused) and outcome.status is RunStatus.CANCELLED and not state.cancelled:
        # The store knows of a cancel whose event has not arrived, or never will.
        draft.stop(outcome.code)
        state = with_cancel(state, at)
    draft.look_when_quiet()
    return settled(with_repair(replace(state, board=draft.frozen())), at)
