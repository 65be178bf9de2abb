"""The tasks of a run that goes on in a fresh history from time to time (ADR 0001). What is decided is in `engine.scheduler`.

What is known here is the durable engine: a history can end only when no activity, no sub-orchestration and no timer is open,
and what an open one answers is lost. So in the last stretch of a history new calls for steps are handed on to instances of their
own, by a short activity; their outcomes come as external events, and those go on to the next history. Where all that is open is
short there is no need: new calls wait a moment until it is over, and the next history makes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from engine.domain import names
from engine.scheduler import AdmittedState
from engine.scheduler.answers import step_crash, step_outcome
from engine.scheduler.commands import Call, Command, Event, StepAnswered, StepCall
from engine.scheduler.generations import calls_apart, is_long_enough, is_short, name_of, outlasts
from engine.scheduler.graph import Graph
from engine.scheduler.steps import is_open
from orchestrators.calls import RunCalls
from orchestrators.shell import Pool, Task

if TYPE_CHECKING:
    from azure.durable_functions import DurableOrchestrationContext

logger = logging.getLogger("livoa.runs")

LOOK_AFTER = timedelta(minutes=5)
"""How soon a run asks what became of calls it does not hear of, in case the news was lost."""
MAX_CRASHES = 10
"""How often in a row handing on may crash before the calls count as crashed."""


class Generation(Pool[AdmittedState]):
    """The open tasks of one history of a run: calls, those carried out apart, and the handing on of these."""

    def __init__(
        self,
        context: DurableOrchestrationContext,
        calls: RunCalls,
        limit: int,
        number: int,
        state: AdmittedState,
        hold: timedelta,
    ) -> None:
        super().__init__(context, calls)
        self._run_calls, self._limit, self._number = calls, limit, number
        self._hold = hold
        self._held_until: Task | None = None
        self._taken_in, self._crashes = 0, 0
        self._apart: dict[Task, StepCall] = {}
        self._starting: dict[Task, tuple[StepCall, ...]] = {}
        self._look: Task | None = None
        self._unsure = calls_apart(state)
        for call in self._unsure:
            self._await_outcome(call)

    def add(self, commands: tuple[Command, ...], state: AdmittedState) -> tuple[Command, ...]:
        """See `Pool`. A call that is to be carried out apart waits while others are being handed on, or while it is held back: it
        is decided again."""
        kept, apart, held = self._sorted(commands, state)
        super().add(kept, state)
        if not self._starting:
            for call in apart:
                self._await_outcome(call)
            self._hand_on(apart, state)
            kept += apart
        self._hold_while(bool(held))
        return kept

    def _sorted(
        self, commands: tuple[Command, ...], state: AdmittedState
    ) -> tuple[tuple[Command, ...], tuple[StepCall, ...], tuple[StepCall, ...]]:
        """What this history does itself, what is carried out apart, and what is held back."""
        board, kept, apart, held = state.run.board, list[Command](), list[StepCall](), list[StepCall]()
        if board is None:
            return commands, (), ()
        ending = self._is_ending(state)
        late = held if ending and self._hold and self._all_short(board.graph) else apart
        for command in commands:
            if not isinstance(command, StepCall):
                kept.append(command)
            elif outlasts(board.graph, command, self._limit):
                apart.append(command)
            else:
                (late if ending else kept).append(command)
        return tuple(kept), tuple(apart), tuple(held)

    def _all_short(self, graph: Graph) -> bool:
        """True when everything that keeps this history open is expected to be over at once."""
        calls = [
            command for task, command in self._open.items() if isinstance(command, Call) and task not in self._apart
        ]
        return all(isinstance(call, StepCall) and is_short(graph, call, self._hold) for call in calls)

    def _hold_while(self, held: bool) -> None:
        """Have a timer while something is held back. A history does so once, and only so long."""
        if held and self._held_until is None:
            self._held_until = self._context.create_timer(self._context.current_utc_datetime + self._hold)
            self._open[self._held_until] = None
        elif not held and self._held_until is not None:
            self._held_until.cancel()
            self._hold_no_more(self._held_until)

    def _hold_no_more(self, timer: Task) -> None:
        self._forget(timer)
        self._held_until, self._hold = None, timedelta()

    def take(self, winner: Task, now: datetime) -> tuple[Event, ...]:
        """See `Pool`."""
        if winner in self._starting:
            # Not counted: the first look of every history is one, and a history must do more than look to be spent.
            return self._handed_on(winner, now)
        if winner is self._held_until:
            self._hold_no_more(winner)
            return ()
        self._taken_in += winner in self._open
        if winner is self._look:
            self._forget(winner)
            self._look, self._unsure = None, tuple(self._apart.values())
            return ()
        self._apart.pop(winner, None)
        return super().take(winner, now)

    def is_spent(self, state: AdmittedState) -> bool:
        """See `Pool`."""
        return (
            self._is_ending(state)
            and not any(isinstance(command, Call) and task not in self._apart for task, command in self._open.items())
            and not self._starting
        )

    def leave(
        self, state: AdmittedState, evolve: Callable[[AdmittedState, Event], AdmittedState]
    ) -> Generator[Task, Task, AdmittedState]:
        """See `Pool`. The engine delivers again what was consumed before the last plain activity, so there is one; and what
        comes while it runs has been consumed by this history's waits, so it is taken in here."""
        self.close()
        try:
            yield self._run_calls.checkpoint(self._number)
        except (
            Exception
        ):  # the SDK raises so what crossed the durable border; that there was an activity is all that matters
            logger.warning("a checkpoint of a run crashed", extra={"run_id": self._run_calls.run_id})
        for task in [task for task in self._open if task.is_completed]:
            for event in self.take(task, self._context.current_utc_datetime):
                state = evolve(state, event)
        return state

    def close(self) -> None:
        """See `Pool`."""
        super().close()
        self._hold_while(False)
        if self._look is not None:
            self._look.cancel()
            self._forget(self._look)
            self._look = None

    def _is_ending(self, state: AdmittedState) -> bool:
        return is_long_enough(state, self._taken_in, self._limit)

    def _await_outcome(self, call: StepCall) -> None:
        wait = self._context.wait_for_external_event(names.outcome_event(name_of(call)))
        self._open[wait] = self._apart[wait] = call

    def _hand_on(self, fresh: tuple[StepCall, ...], state: AdmittedState) -> None:
        board = state.run.board
        if board is None:
            return
        if self._unsure:
            again = tuple(call for call in self._unsure if is_open(board, call))
            self._unsure = ()
            self._start(again, state, again=True)
        self._start(fresh, state, again=False)
        if self._look is None and any(is_open(board, call) for call in self._apart.values()):
            self._look = self._context.create_timer(self._context.current_utc_datetime + LOOK_AFTER)
            self._open[self._look] = None

    def _start(self, calls: tuple[StepCall, ...], state: AdmittedState, *, again: bool) -> None:
        if calls:
            task = self._run_calls.start_apart(calls, state, again=again)
            self._starting[task] = calls
            self._open[task] = None

    def _handed_on(self, winner: Task, now: datetime) -> tuple[Event, ...]:
        """Some of the calls may have ended before they could be heard of. After a crash they are handed on again."""
        calls, result = self._starting.pop(winner), winner.result
        self._forget(winner)
        if not isinstance(result, dict):
            self._crashes += 1
            if self._crashes < MAX_CRASHES:
                self._unsure += calls
                return ()
            return tuple(StepAnswered(call, step_crash(), now) for call in calls)
        self._crashes = 0
        ended = result.get("ended") or {}
        return tuple(
            StepAnswered(call, step_outcome(ended[name_of(call)]), now) for call in calls if name_of(call) in ended
        )

    def _forget(self, task: Task) -> None:
        del self._open[task]
        self._listed -= 1
