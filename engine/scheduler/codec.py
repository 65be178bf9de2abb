"""A run's state as JSON text and back, for handing a run on to a fresh history. ``loads(dumps(state)) == state``.

Only what differs from a fresh board is written beside one letter per step, so finished steps cost a byte.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from engine.domain.base import iso_utc
from engine.domain.status import RunStatus, StepStatus
from engine.scheduler.board import Awaited, Board, MapProgress, Stage, StepState, chunked
from engine.scheduler.graph import Graph, graph_from_wire, graph_to_wire
from engine.scheduler.pausing import NO_PAUSE, Pause
from engine.scheduler.run_state import RunRef, RunState
from engine.scheduler.transitions import RunPhase, StepTrigger

FORMAT = 1

_LETTERS = {
    StepStatus.PENDING: "p",
    StepStatus.WAITING: "w",
    StepStatus.RUNNING: "r",
    StepStatus.SUCCEEDED: "s",
    StepStatus.FAILED: "f",
    StepStatus.DENIED: "d",
    StepStatus.SKIPPED: "k",
    StepStatus.CANCELLED: "c",
}
_STATUSES = {letter: status for status, letter in _LETTERS.items()}
_OPEN_LETTERS = frozenset(letter for status, letter in _LETTERS.items() if not status.is_final)


def dumps(state: RunState, *, with_skeleton: bool = True) -> str:
    """The state as compact JSON text, the same for equal states. The skeleton may travel apart: it never changes."""
    value = {
        "v": FORMAT,
        "ref": [state.ref.tenant_id, state.ref.run_id, iso_utc(state.ref.deadline_at), state.ref.version],
        "phase": state.phase,
        "attempt": state.attempt,
        "look": state.look,
        "held": [state.held_by, state.listening_to, state.announced],
        "open": state.call_open,
        "cancelled": state.cancelled,
        "overdue": state.overdue,
        "recorded": state.recorded,
        "give_up_at": instant_out(state.give_up_at),
        "retry_at": instant_out(state.retry_at),
        "armed_at": instant_out(state.armed_at),
        "ending": state.ending,
        "undoing": [state.undoing, state.not_undone],
        "pause": _pause_out(state.pause),
        "repair": [state.repairs, state.repairing],
        "board": _board_out(state.board, with_skeleton) if state.board is not None else None,
    }
    return json.dumps(value, separators=(",", ":"))


def loads(text: str, graph: Graph | None = None) -> RunState:
    """The inverse of ``dumps``; ``graph`` where the skeleton travelled apart.

    Raises ``ValueError`` for text of another format.
    """
    value = json.loads(text)
    if not isinstance(value, dict) or value.get("v") != FORMAT:
        raise ValueError("not a run state of this format")
    tenant_id, run_id, deadline_at, *version = value["ref"]
    held_by, listening_to, announced = value.get("held", (None, None, False))
    undoing, not_undone = value.get("undoing", ((), ()))
    repairs, repairing = value.get("repair", (0, None))
    return RunState(
        ref=RunRef(tenant_id, run_id, _instant(deadline_at), *version),
        phase=RunPhase(value["phase"]),
        give_up_at=instant_in(value["give_up_at"]),
        board=_board_in(value["board"], graph) if value["board"] is not None else None,
        attempt=value["attempt"],
        look=value.get("look", 0),
        held_by=held_by,
        listening_to=listening_to,
        announced=announced,
        call_open=value["open"],
        retry_at=instant_in(value["retry_at"]),
        armed_at=instant_in(value["armed_at"]),
        cancelled=value["cancelled"],
        overdue=value["overdue"],
        ending=(RunStatus(value["ending"][0]), value["ending"][1]) if value["ending"] else None,
        recorded=value["recorded"],
        undoing=tuple(undoing),
        not_undone=tuple((step, code) for step, code in not_undone),
        pause=_pause_in(value.get("pause")),
        repairs=repairs,
        repairing=repairing,
    )


def instant_out(instant: datetime | None) -> str | None:
    return iso_utc(instant) if instant is not None else None


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def instant_in(text: str | None) -> datetime | None:
    return _instant(text) if text is not None else None


def _pause_out(pause: Pause) -> list[Any] | None:
    return [*pause[:2], instant_out(pause.look_at), *pause[3:]] if pause != NO_PAUSE else None


def _pause_in(value: list[Any] | None) -> Pause:
    if value is None:
        return NO_PAUSE
    number, looks, look_at, listening, resumed = value
    return Pause(number, looks, instant_in(look_at), listening, resumed)


def _board_out(board: Board, with_skeleton: bool) -> dict[str, Any]:
    graph, maps = board.graph, board.graph.maps
    letters, extras = [], {}
    for index, record in enumerate(board.records()):
        status, attempt, look, stage, _, code, progress = record
        letters.append(_LETTERS[status])
        # Spelled out, because nearly every step of a long plan takes this way in every generation.
        usual = Stage.EXPAND if index in maps else Stage.PERFORM
        if stage is not usual or attempt != 1 or look or code is not None or progress is not None:
            extras[str(index)] = _extra_out(graph, index, record)
    return {
        **({"skeleton": graph_to_wire(board.graph)} if with_skeleton else {}),
        "steps": "".join(letters),
        "extras": extras,
        "ready": format(board.ready, "x"),
        "used": board.used,
        **({"used_of": board.used_of} if board.used_of else {}),
        "sleepers": [[iso_utc(due_at), step] for due_at, step in board.sleepers],
        "stopped": board.stopped,
        "awaited": board.awaited,
        "begun": board.begun,
        "pause": _pause_out(board.pause),
        "failing": board.failing,
    }


def _board_in(value: dict[str, Any], graph: Graph | None) -> Board:
    graph = graph or graph_from_wire(value["skeleton"])
    letters, unmet, unfinished = value["steps"], [0] * len(graph.steps), 0
    if len(letters) != len(unmet):
        raise ValueError("the state of another plan's steps")
    for index, letter in enumerate(letters):
        if letter in _OPEN_LETTERS:
            unfinished += 1
            for dependant, _ in graph.dependants[index]:
                unmet[dependant] += 1
    # Most steps are like many others, and one record serves them all.
    records = list(map(_Plain().__getitem__, zip(letters, unmet, strict=True)))
    for index in graph.maps:
        records[index] = records[index]._replace(stage=Stage.EXPAND)
    for place, extra in value["extras"].items():
        records[int(place)] = _with_extra(records[int(place)], extra)
    return Board(
        graph=graph,
        chunks=chunked(records),
        ready=int(value["ready"], 16),
        used=value["used"],
        sleepers=tuple((_instant(due_at), step) for due_at, step in value["sleepers"]),
        unfinished=unfinished,
        stopped=value["stopped"],
        awaited=tuple(Awaited(*entry) for entry in value.get("awaited", ())),
        begun=tuple(value.get("begun", ())),
        pause=_pause_in(value.get("pause")),
        used_of=tuple(value.get("used_of", ())),
        failing=tuple((step, code) for step, code in value.get("failing", ())),
    )


def _extra_out(graph: Graph, index: int, record: StepState) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if record.attempt != 1:
        extra["a"] = record.attempt
    if record.look:
        extra["l"] = record.look
    if record.stage is not _first_stage(graph, index):
        extra["g"] = record.stage
    if record.code is not None:
        extra["c"] = record.code
    if (progress := record.progress) is not None:
        extra["p"] = [progress.item_count, progress.next_item, progress.open_parts, progress.verdict]
    return extra


def _with_extra(record: StepState, extra: dict[str, Any]) -> StepState:
    progress = None
    if "p" in extra:
        item_count, next_item, open_parts, verdict = extra["p"]
        progress = MapProgress(
            item_count=item_count,
            next_item=next_item,
            open_parts=tuple((first, width) for first, width in open_parts),
            verdict=(StepTrigger(verdict[0]), verdict[1]) if verdict else None,
        )
    return record._replace(
        attempt=extra.get("a", 1),
        look=extra.get("l", 0),
        stage=Stage(extra["g"]) if "g" in extra else record.stage,
        code=extra.get("c"),
        progress=progress,
    )


class _Plain(dict[tuple[str, int], StepState]):
    """The records of steps of which there is nothing to tell but (letter, unmet needs), each made once."""

    def __missing__(self, key: tuple[str, int]) -> StepState:
        letter, unmet = key
        record = self[key] = StepState(status=_STATUSES[letter], unmet=unmet)
        return record


def _first_stage(graph: Graph, index: int) -> Stage:
    return Stage.EXPAND if index in graph.maps else Stage.PERFORM
