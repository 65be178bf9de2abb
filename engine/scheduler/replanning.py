"""A board goes on with a new version of its plan: what has begun keeps its place and its state, the rest is replaced.

Steps keep their numbers for good, so calls that are open, parts of maps and timers stay what they are; new steps get numbers
behind the old ones. A step that the new version does not have is retired, never removed: it keeps its end, and its undoing.
"""

from __future__ import annotations

from dataclasses import replace

from engine.domain.skeleton import SkeletonStep
from engine.domain.status import StepStatus
from engine.scheduler.board import Board, Draft, Stage, StepState, chunked
from engine.scheduler.graph import Graph, compile_graph
from engine.scheduler.transitions import StepTrigger

REPLACED_CODE = "step.replaced"
"""Why a step never ran that a repair of the plan left out."""


def replanned(board: Board, version: Graph, failed: int) -> Board | None:
    """The board with the steps of ``version``; ``failed`` is the step that the plan was repaired for.

    None for a version that cannot be one of this board: it keeps the failed step, leaves out something else that has begun,
    changes what a kept step needs, or uses an id again.
    """
    old = board.graph.steps
    number_of = {spec.id: number for number, spec in enumerate(old)}
    stays: set[int] = set()
    added: list[SkeletonStep] = []
    numbers: list[int] = []
    for spec in version.steps:
        number = number_of.get(spec.id, len(old) + len(added))
        numbers.append(number)
        moved = replace(spec, needs=_moved(spec.needs, numbers), tolerates=_moved(spec.tolerates, numbers))
        if number >= len(old):
            added.append(moved)
        elif _is_same(old[number], moved):
            stays.add(number)
        else:
            return None
    gone = [number for number, spec in enumerate(old) if number not in stays and not spec.retired]
    if failed not in gone or any(
        board.record(number).status is not StepStatus.PENDING for number in gone if number != failed
    ):
        return None
    retired = (spec if number in stays else replace(spec, retired=True) for number, spec in enumerate(old))
    caps, added = _capped(board, version, numbers, added)
    skeleton = replace(board.graph.skeleton, steps=(*retired, *added), plan_hash=version.skeleton.plan_hash, caps=caps)
    draft = Draft(_grown(board, compile_graph(skeleton)))
    for number in reversed(gone):  # what comes later first, so that nothing is made ready by the end of what it needs
        if number != failed:
            draft.settle(number, StepTrigger.SKIP, REPLACED_CODE)
    for number in range(len(old), len(skeleton.steps)):
        if (lost := _lost_need(board, skeleton.steps[number])) is not None:
            draft.settle(number, StepTrigger.SKIP, f"step.needs_{lost}")
    return draft.frozen()


def _moved(needs: tuple[int, ...], numbers: list[int]) -> tuple[int, ...]:
    return tuple(sorted(numbers[need] for need in needs))


def _is_same(old: SkeletonStep, new: SkeletonStep) -> bool:
    """What a kept step waits for must not change; how it is retried stays as it was, whatever the catalog says today."""
    if old.retired:
        return False
    return (old.kind, tuple(sorted(old.needs)), tuple(sorted(old.tolerates))) == (new.kind, new.needs, new.tolerates)


def _capped(
    board: Board, version: Graph, numbers: list[int], added: list[SkeletonStep]
) -> tuple[tuple[int, ...], list[SkeletonStep]]:
    """The caps of both versions, and the new steps with theirs: one that a kept step counts towards goes on counting."""
    old = board.graph.steps
    caps = list(board.graph.skeleton.caps)
    known = {0: 0}
    for spec, number in zip(version.steps, numbers, strict=True):
        if number < len(old) and spec.cap and old[number].cap:
            known[spec.cap] = old[number].cap
    for cap, room in enumerate(version.skeleton.caps, start=1):
        if cap not in known:
            caps.append(room)
            known[cap] = len(caps)
    return tuple(caps), [replace(spec, cap=known[spec.cap]) for spec in added]


def _grown(board: Board, graph: Graph) -> Board:
    """The same states on the larger graph; what is new is pending."""
    records = list(board.records())
    known = len(records)
    ready = sum(1 << graph.rank_of[number] for number in range(known) if board.is_ready(number))
    for number in range(known, len(graph.steps)):
        spec = graph.steps[number]
        unmet = sum(need >= known or not records[need].status.is_final for need in set(spec.needs))
        records.append(StepState(unmet=unmet, stage=Stage.EXPAND if spec.kind == "map" else Stage.PERFORM))
        ready |= (unmet == 0) << graph.rank_of[number]
    unfinished = board.unfinished + len(records) - known
    used_of = (*board.used_of, *(0 for _ in graph.skeleton.caps[len(board.used_of) :]))
    grown = replace(board, graph=graph, chunks=chunked(records), ready=ready, unfinished=unfinished)
    return replace(grown, used_of=used_of)


def _lost_need(board: Board, spec: SkeletonStep) -> StepStatus | None:
    """How a need ended that a new step cannot do without; None when there is none."""
    known = len(board.graph.steps)
    ends = (board.record(need).status for need in spec.needs if need < known and need not in spec.tolerates)
    return next((status for status in ends if status.is_final and status is not StepStatus.SUCCEEDED), None)
