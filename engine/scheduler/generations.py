"""A long run goes on in a fresh history from time to time (a *generation*): what goes with it, and when.

A history ends only when nothing is open whose result it would lose. Calls that must not hold it open are carried out *apart*, by
an instance of their own, and their outcomes come back as events, which the next generation hears as well. Pure, like the rest.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

from engine.scheduler.admitted import AdmittedState, LeaseTerms
from engine.scheduler.codec import dumps, instant_in, instant_out, loads
from engine.scheduler.commands import CollectMap, ExpandMap, PerformStep, RunMapPart, StepCall
from engine.scheduler.graph import Graph, graph_from_text, graph_to_text
from engine.scheduler.steps import open_calls
from engine.scheduler.transitions import RunPhase

MIN_LENGTH = 3
"""A history that took in so many times its limit ends, however little is left to do."""


def is_long_enough(state: AdmittedState, taken_in: int, limit: int) -> bool:
    """True when the run should go on in a fresh history: this one took in ``limit`` events, and the rest is worth another."""
    if taken_in < limit:
        return False
    return 2 * _left(state) >= limit or taken_in >= MIN_LENGTH * limit


def _left(state: AdmittedState) -> int:
    """How many steps are still to be run, or undone."""
    match state.run.phase:
        case RunPhase.RUNNING if state.run.board is not None:
            return state.run.board.unfinished
        case RunPhase.UNDOING:
            return len(state.run.undoing)
        case _:
            return 0


def outlasts(graph: Graph, call: StepCall, limit: int) -> bool:
    """True for a call that is expected to take longer than a whole history of a graph that needs several.

    It is carried apart from the beginning. A wrong estimate delays the next generation; it delays no step.
    """
    count, spec = len(graph.steps), graph.steps[call.step]
    if count < 2 * limit or not isinstance(call, PerformStep | RunMapPart) or spec.kind in ("wait", "approval"):
        return False
    return spec.expected_s * count > graph.expected_s * limit


def is_short(graph: Graph, call: StepCall, hold: timedelta) -> bool:
    """True for a call that new ones may be held back for: it is expected to be over in half the time that this may take.

    A wait or a question is, however long it takes: the call only begins it.
    """
    spec = graph.steps[call.step]
    begins = spec.kind in ("wait", "approval")
    return isinstance(call, PerformStep) and (begins or spec.expected_s * 2 <= hold.total_seconds())


def calls_apart(state: AdmittedState) -> tuple[StepCall, ...]:
    """The calls that are open in a state that was handed on: all of them are carried out apart."""
    return open_calls(state.run.board) if state.run.board is not None and state.run.phase is RunPhase.RUNNING else ()


def name_of(call: StepCall) -> str:
    """The call in a form fit for the names of instances and events."""
    match call:
        case PerformStep():
            return f"perform-{call.step}-{call.attempt}-{call.look}"
        case ExpandMap():
            return f"expand-{call.step}-{call.attempt}-{call.look}"
        case CollectMap():
            return f"collect-{call.step}-{call.attempt}-{call.look}"
        case RunMapPart():
            return f"part-{call.step}-{call.first}"


def pack(state: AdmittedState) -> str:
    """The state as text for the start document of the next generation.

    What only this history had is gone: its timer and the events it listened to; the next one asks for them anew. Compressed,
    because a start document is JSON within JSON within JSON, where each quotation mark of a skeleton would be four characters.
    The skeleton stands apart, before a dot: it is the same each time, so it is packed and unpacked once in a process.
    """
    place = [
        state.stage,
        state.look,
        state.call_open,
        *(instant_out(at) for at in (state.ask_at, state.wait_until, state.renew_at)),
        state.renewals,
    ]
    run = dumps(_forgetful(state).run, with_skeleton=False)
    skeleton = _packed_skeleton(graph_to_text(state.run.board.graph)) if state.run.board is not None else ""
    return f"{skeleton}.{_packed(json.dumps({'run': run, 'place': place}, separators=(',', ':')))}"


def unpack(text: str, terms: LeaseTerms | None) -> AdmittedState:
    """The inverse of ``pack``, under the terms that stand beside it. Raises ``ValueError`` for another text.

    Remembered by the text: a history decodes it once, not with each replay.
    """
    return replace(_unpacked(text), terms=terms)


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode())).decode()


def _text_in(packed: str) -> str:
    return zlib.decompress(base64.b64decode(packed, validate=True)).decode()


@lru_cache(maxsize=32)
def _packed_skeleton(text: str) -> str:
    return _packed(text)


@lru_cache(maxsize=32)
def _graph_in(packed: str) -> Graph:
    return graph_from_text(_text_in(packed))


@lru_cache(maxsize=32)
def _unpacked(text: str) -> AdmittedState:
    skeleton, _, rest = text.partition(".")
    try:
        value = json.loads(_text_in(rest))
        stage, look, call_open, ask_at, wait_until, renew_at, renewals = value["place"]
        run = loads(value["run"], _graph_in(skeleton) if skeleton else None)
    except (zlib.error, KeyError, TypeError) as err:
        raise ValueError("not the state of a run") from err
    return AdmittedState(
        run=run,
        terms=None,
        stage=stage,
        look=look,
        call_open=call_open,
        ask_at=instant_in(ask_at),
        wait_until=instant_in(wait_until),
        renew_at=instant_in(renew_at),
        renewals=renewals,
    )


def _forgetful(state: AdmittedState) -> AdmittedState:
    run = state.run
    board = run.board
    if board is not None:
        awaited = tuple(entry._replace(listening=False) for entry in board.awaited)
        board = replace(board, awaited=awaited, pause=board.pause._replace(listening=False))
    pause = run.pause._replace(listening=False)
    run = replace(run, board=board, armed_at=None, listening_to=None, pause=pause)
    return replace(state, run=run, armed_at=None)
