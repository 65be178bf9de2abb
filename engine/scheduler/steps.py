"""What may start on a board, and what an answer does to a step: attempts, backoff, waits, skips and the parts of a map.

Pure and total: a call that is not open any more, or an answer that does not fit its call, never raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

from engine.domain.names import approval_event
from engine.domain.outcomes import (
    AwaitingApproval,
    Cancelled,
    Denied,
    Dispatched,
    Expanded,
    Failed,
    Skipped,
    StepOutcome,
    Succeeded,
    Suspended,
    Waiting,
)
from engine.domain.skeleton import OnFailure
from engine.domain.status import StepStatus
from engine.scheduler.backoff import RetryPolicy, delay_s
from engine.scheduler.board import Board, Draft, MapProgress, Stage, StepState
from engine.scheduler.commands import CollectMap, ExpandMap, Listen, PerformStep, RunMapPart, StepCall
from engine.scheduler.pausing import watchdog
from engine.scheduler.transitions import StepTrigger

CANCELLED_CODE = "run.cancelled"
DEADLINE_CODE = "run.deadline"

MAX_PART_ITEMS = 100
"""Items in one sub-orchestration of a map: its history stays as small as that of a small run."""
MAX_OPEN_PARTS = 4
"""Parts of one map that run side by side, so that a slow item holds up its own part only."""
MAX_LOOKS = 1_000
"""How often one attempt may answer ``waiting`` before it counts as failed."""
UPKEEP_ATTEMPTS = 5
"""Tries for counting and collecting items at least: they have no effect outside, and losing them would discard finished work."""
MIN_WAIT = timedelta(milliseconds=100)
"""A ``waiting`` answer that is already due is asked again after this, so it cannot spin."""
CLOCKS_DIFFER_LOOK = timedelta(seconds=60)
"""How soon to ask again when it is time by this clock and not yet by the clock of who answered. They are those of two machines,
or of one that was set back."""
CLOCKS_DIFFER_PARTS = 50
"""Where more than so many of these looks are left, one comes after such a part of what is left: a clock that was set back by days
must not use up the looks of a step."""
CLOCKS_DIFFER_MOST = timedelta(days=100)
"""What is left beyond that is not counted."""
MAX_LISTENED = 100
"""Events that one instance is told of at a time; it bounds the cost of each ``task_any``. Others wait for a look."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What an answer is judged by besides the board: the run's id (for jitter), when everything is given up, and whether a
    failure for good may still have the plan repaired."""

    run_id: str
    give_up_at: datetime
    may_repair: bool = False


def starts(board: Board) -> tuple[StepCall, ...]:
    """The calls to issue now, most important step first, as far as capacity reaches."""
    calls: list[StepCall] = []
    if board.pause.holds:
        return ()
    free, ready = board.capacity_left, board.ready
    if board.awaited:
        for step in board.at_work():  # they have their places: however full it is, what they did is taken up
            if board.is_ready(step):
                calls.extend(_calls_of(board, step, 1))
                ready &= ~(1 << board.graph.rank_of[step])
    rooms = [cap - used for cap, used in zip(board.graph.skeleton.caps, board.used_of, strict=True)]
    ready &= ~_full(board, rooms)
    while ready and free > 0:
        lowest = ready & -ready
        ready ^= lowest
        step = board.graph.by_rank[lowest.bit_length() - 1]
        cap = board.graph.steps[step].cap
        for call in _calls_of(board, step, min(free, rooms[cap - 1]) if cap else free):
            calls.append(call)
            free -= width_of(call)
            if cap:
                rooms[cap - 1] -= width_of(call)
        if cap and rooms[cap - 1] <= 0:
            ready &= ~board.graph.cap_masks[cap - 1]
    return tuple(calls)


def _full(board: Board, rooms: list[int]) -> int:
    """The ranks of all steps whose capability has no room left."""
    full = 0
    for mask, room in zip(board.graph.cap_masks, rooms, strict=True):
        full |= mask if room <= 0 else 0
    return full


def listens(board: Board) -> tuple[Listen, ...]:
    """The events to listen to from now on, oldest first."""
    if not board.awaited:
        return ()
    free = MAX_LISTENED - sum(entry.listening for entry in board.awaited)
    new = [Listen(entry.event) for entry in board.awaited if not entry.listening]
    return tuple(dict.fromkeys(new))[: max(free, 0)]


def width_of(call: StepCall) -> int:
    """Capacity an open call takes: a part of a map counts with every item it may run at a time."""
    return call.concurrency if isinstance(call, RunMapPart) else 1


def _calls_of(board: Board, step: int, free: int) -> Iterator[StepCall]:
    record = board.record(step)
    match record.stage:
        case Stage.PERFORM:
            yield PerformStep(step, record.attempt, record.look)
        case Stage.EXPAND:
            yield ExpandMap(step, record.attempt, record.look)
        case Stage.COLLECT:
            item_count = record.progress.item_count if record.progress else 0
            yield CollectMap(step, record.attempt, item_count, record.look)
        case Stage.PARTS:
            yield from _parts_of(board, step, record.progress or MapProgress(0), free)
        case _:
            assert_never(record.stage)


def _parts_of(board: Board, step: int, progress: MapProgress, free: int) -> Iterator[RunMapPart]:
    limit = min(board.graph.steps[step].concurrency, board.graph.capacity)
    lanes, size = _lanes(progress.item_count, limit)
    granted = sum(width for _, width in progress.open_parts)
    open_lanes, first = len(progress.open_parts), progress.next_item
    while first < progress.item_count and open_lanes < lanes and free > 0:
        width = min(free, -(-(limit - granted) // (lanes - open_lanes)))
        count = min(size, progress.item_count - first)
        yield RunMapPart(step, first, count, width)
        granted, free, open_lanes, first = granted + width, free - width, open_lanes + 1, first + count


def part_starts(item_count: int) -> range:
    """The first items of the parts that a map of so many items is cut into, whatever its concurrency."""
    return range(0, item_count, _lanes(item_count, 1)[1]) if item_count else range(0)


def _lanes(item_count: int, limit: int) -> tuple[int, int]:
    """How many parts may be open at once, and how many items each gets: parts of even size, so that none trails."""
    parts = max(1, -(-item_count // MAX_PART_ITEMS))
    return min(MAX_OPEN_PARTS, limit, parts), -(-item_count // parts)


def open_calls(board: Board) -> tuple[StepCall, ...]:
    """The calls that were issued and have not been answered, in plan order."""
    calls: list[StepCall] = []
    running = [(step, record) for step, record in enumerate(board.records()) if record.status is StepStatus.RUNNING]
    for step, record in running:
        if record.stage is Stage.PARTS and record.progress is not None:
            items, size = record.progress.item_count, _lanes(record.progress.item_count, 1)[1]
            calls.extend(
                RunMapPart(step, first, min(size, items - first), width) for first, width in record.progress.open_parts
            )
        elif not board.is_ready(step):
            calls.extend(_calls_of(board, step, 1))
    return tuple(calls)


def issue(draft: Draft, call: StepCall) -> None:
    """Note that a call was issued. One that may not be issued now (a repetition) changes nothing."""
    if not draft.is_ready(call.step) or not _is_next(draft.record(call.step), call):
        return
    if not draft.is_at_work(call.step):
        draft.take(call.step, width_of(call))
    draft.start(call.step)
    record = draft.record(call.step)
    if isinstance(call, RunMapPart) and record.progress is not None:
        open_parts = (*record.progress.open_parts, (call.first, call.concurrency))
        progress = replace(record.progress, next_item=call.first + call.count, open_parts=open_parts)
        draft.put(call.step, record._replace(progress=progress))
        _look_for_parts(draft, call.step)


def _is_next(record: StepState, call: StepCall) -> bool:
    match call:
        case PerformStep():
            return (record.stage, record.attempt, record.look) == (Stage.PERFORM, call.attempt, call.look)
        case ExpandMap():
            return (record.stage, record.attempt, record.look) == (Stage.EXPAND, call.attempt, call.look)
        case CollectMap():
            return (record.stage, record.attempt, record.look) == (Stage.COLLECT, call.attempt, call.look)
        case RunMapPart():
            return record.progress is not None and record.progress.next_item == call.first
        case _:
            assert_never(call)


def _look_for_parts(draft: Draft, step: int) -> None:
    """A map stays in the ready set only while another part of it could open."""
    record = draft.record(step)
    progress = record.progress or MapProgress(0)
    limit = min(draft.spec(step).concurrency, draft.graph.capacity)
    lanes, _ = _lanes(progress.item_count, limit)
    more = progress.next_item < progress.item_count and progress.verdict is None and draft.stopped is None
    draft.set_ready(step, more and len(progress.open_parts) < lanes)


def is_open(draft: Draft | Board, call: StepCall) -> bool:
    """True when ``call`` was issued and has not been answered."""
    record = draft.record(call.step)
    if record.status is not StepStatus.RUNNING:
        return False
    if isinstance(call, RunMapPart):
        return record.progress is not None and (call.first, call.concurrency) in record.progress.open_parts
    return _is_next(record, call) and not draft.is_ready(call.step)


def answer(draft: Draft, call: StepCall, outcome: StepOutcome, at: datetime, frame: Frame) -> None:
    """Let an open call return. The caller has checked ``is_open``."""
    if not draft.is_at_work(call.step):
        draft.take(call.step, -width_of(call))
    if isinstance(outcome, Cancelled) and outcome.code != DEADLINE_CODE:
        # The store knows of a cancel whose event has not arrived, or never will. A part of a map that reached the deadline
        # a moment before the run did is no such news.
        draft.stop(outcome.code)
    if isinstance(call, RunMapPart):
        _part_returned(draft, call, outcome)
    else:
        _took(draft, call, outcome, at, frame)
    if not isinstance(outcome, AwaitingApproval):
        draft.look_when_quiet()


def _took(draft: Draft, call: StepCall, outcome: StepOutcome, at: datetime, frame: Frame) -> None:
    step = call.step
    if not isinstance(outcome, AwaitingApproval | Dispatched):
        draft.forget_awaited(step)
    match outcome:
        case Succeeded():  # of a map that is to be counted too: another run has done it all
            draft.settle(step, StepTrigger.SUCCEED)
        case Expanded():
            _expanded(draft, call, outcome)
        case Failed():
            _failed(draft, call, outcome, at, frame)
        case Denied():
            draft.settle(step, StepTrigger.DENY, outcome.code)
        case Skipped():
            draft.settle(step, StepTrigger.SKIP, outcome.code)
        case Cancelled():
            draft.settle(step, StepTrigger.CANCEL, outcome.code)
        case Waiting():
            _waiting(draft, call, outcome, at)
        case AwaitingApproval():
            look_by = agreed_instant(outcome.expires_at, outcome.left_s, at)
            _awaiting(draft, call, approval_event(outcome.approval_id), look_by, at)
        case Dispatched():
            look_by = agreed_instant(outcome.look_by, outcome.left_s, at)
            _awaiting(draft, call, outcome.event, look_by, at, at_work=True)
        case Suspended():
            _suspended(draft, call, outcome, at)
        case _:
            assert_never(outcome)


_UNEXPECTED = (StepTrigger.FAIL, "step.unexpected_outcome")


def _failed(draft: Draft, call: StepCall, outcome: Failed, at: datetime, frame: Frame) -> None:
    step, spec, record = call.step, draft.spec(call.step), draft.record(call.step)
    attempts = max(spec.max_attempts, 1 if isinstance(call, PerformStep) else UPKEEP_ATTEMPTS)
    policy = RetryPolicy(attempts, spec.backoff_s, spec.factor, spec.max_backoff_s)
    if outcome.retryable and record.attempt < policy.max_attempts and draft.stopped is None:
        key = f"{frame.run_id}/{spec.id}/{record.stage}"
        due_at = at + timedelta(seconds=delay_s(policy, key, record.attempt, outcome.retry_after_s))
        if due_at < frame.give_up_at:
            draft.sleep(step, due_at, record._replace(attempt=record.attempt + 1, look=0))
            return
    if spec.on_failure == "repair" and frame.may_repair and draft.stopped is None:
        draft.hold_failed(step, outcome.code)
    else:
        draft.settle(step, _failure_trigger(spec.on_failure), outcome.code)


def _failure_trigger(on_failure: OnFailure) -> StepTrigger:
    match on_failure:
        case "skip":
            return StepTrigger.SKIP
        case "fail" | "fallback" | "repair":
            return StepTrigger.FAIL
        case _:
            assert_never(on_failure)


def _waiting(draft: Draft, call: StepCall, outcome: Waiting, at: datetime) -> None:
    record = draft.record(call.step)
    until_at = agreed_instant(outcome.until_at, outcome.left_s, at)
    if draft.stopped is not None:
        draft.settle(call.step, StepTrigger.CANCEL, draft.stopped)
    elif until_at is None or not isinstance(call, PerformStep) or record.look >= MAX_LOOKS:
        draft.settle(call.step, *_UNEXPECTED)
    else:
        draft.sleep(call.step, max(until_at, at + MIN_WAIT), record._replace(look=record.look + 1))


def _awaiting(
    draft: Draft, call: StepCall, event: str, look_by: datetime | None, at: datetime, *, at_work: bool = False
) -> None:
    record = draft.record(call.step)
    look = record.look + 1
    if draft.stopped is not None:
        draft.settle(call.step, StepTrigger.CANCEL, draft.stopped)
    elif look_by is None or not isinstance(call, PerformStep) or record.look >= MAX_LOOKS:
        draft.settle(call.step, *_UNEXPECTED)
    else:
        due_at = max(min(look_by, at + watchdog(look)), at + MIN_WAIT)
        draft.await_event(call.step, event, due_at, record._replace(look=look), at_work=at_work)


def _suspended(draft: Draft, call: StepCall, outcome: Suspended, at: datetime) -> None:
    record = draft.record(call.step)
    if draft.stopped is not None:
        draft.settle(call.step, StepTrigger.CANCEL, draft.stopped)
    elif record.look >= MAX_LOOKS:
        draft.settle(call.step, *_UNEXPECTED)
    else:
        draft.put_back(call.step, record._replace(look=record.look + 1))
        draft.pause = draft.pause.told(outcome.number, at)


def agreed_instant(text: str, left_s: float | None, at: datetime) -> datetime | None:
    """When to look again because of an instant in an answer that came at ``at`` and said how long it was to that instant.

    The instant itself, unless it is over here and was not yet over there: then both clocks cannot be right, and it is asked again
    at the pace of time, not of the disagreement. None for what is no instant.
    """
    instant_at = parsed_instant(text)
    if instant_at is None or left_s is None or instant_at > at:
        return instant_at
    left = timedelta(seconds=min(max(left_s, 0.0), CLOCKS_DIFFER_MOST.total_seconds()))
    return at + min(left, max(CLOCKS_DIFFER_LOOK, left / CLOCKS_DIFFER_PARTS))


def parsed_instant(text: str) -> datetime | None:
    """An RFC 3339 instant in UTC, or None."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.astimezone(UTC) if parsed.tzinfo is not None else None


def _expanded(draft: Draft, call: StepCall, outcome: Expanded) -> None:
    if draft.stopped is not None:
        draft.settle(call.step, StepTrigger.CANCEL, draft.stopped)
    elif isinstance(call, ExpandMap):
        _enter(draft, call.step, MapProgress(outcome.item_count))
    else:
        draft.settle(call.step, *_UNEXPECTED)


def _enter(draft: Draft, step: int, progress: MapProgress) -> None:
    """Go on with a map's parts, or with collecting when every item has run."""
    stage = Stage.PARTS if progress.next_item < progress.item_count or progress.open_parts else Stage.COLLECT
    draft.put(step, draft.record(step)._replace(stage=stage, attempt=1, look=0, progress=progress))
    if stage is Stage.PARTS:
        _look_for_parts(draft, step)
    else:
        draft.set_ready(step, True)


def _part_returned(draft: Draft, call: RunMapPart, outcome: StepOutcome) -> None:
    record = draft.record(call.step)
    if record.progress is None:
        return
    open_parts = tuple(part for part in record.progress.open_parts if part != (call.first, call.concurrency))
    verdict = record.progress.verdict or _part_verdict(outcome)
    progress = replace(record.progress, open_parts=open_parts, verdict=verdict)
    if open_parts or (verdict is None and draft.stopped is None):
        _enter(draft, call.step, progress)
    elif draft.stopped is not None:
        draft.settle(call.step, *(verdict or (StepTrigger.CANCEL, draft.stopped)))
    elif verdict is not None and verdict[0] is not StepTrigger.FAIL:
        draft.settle(call.step, *verdict)
    else:
        # Collecting says which items failed and records it; no further item is run.
        _enter(draft, call.step, replace(progress, next_item=progress.item_count))


def _part_verdict(outcome: StepOutcome) -> tuple[StepTrigger, str] | None:
    match outcome:
        case Succeeded():
            return None
        case Failed():
            return StepTrigger.FAIL, outcome.code
        case Denied():
            return StepTrigger.DENY, outcome.code
        case Cancelled():
            return StepTrigger.CANCEL, outcome.code
        case Skipped() | Waiting() | AwaitingApproval() | Dispatched() | Suspended() | Expanded():
            return _UNEXPECTED
        case _:
            assert_never(outcome)
