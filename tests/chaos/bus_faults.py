"""Faults to plant into the product: each must be noticed by the schedules of every day (``test_bus_faults``).

A fault takes one remedy away or one check out, as a careless change would. README.md lists them in words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from bus_worker.step import Held, StepWorker
from engine.adapters import assignment_rules as rules
from engine.domain.bus import Assignment
from engine.step_runner import perform
from triggers import bus_step_results, timer_step_care

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Fault:
    """What is wrong, in words, and how it is made so."""

    name: str
    plant: Plant


async def _says_nothing(*_: Any, **__: Any) -> bool:
    return False


async def _does_nothing(*_: Any, **__: Any) -> None:
    return None


def silent_sweep(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(timer_step_care, "tell_step_ended", _says_nothing)


def sweep_sends_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(timer_step_care, "send_command", _does_nothing)


def sweep_takes_nothing_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(timer_step_care, "_take_back", _says_nothing)


def no_heartbeats(patch: pytest.MonkeyPatch) -> None:
    async def never(_: StepWorker, __: Held) -> str:
        await asyncio.get_running_loop().create_future()
        return "never"

    patch.setattr(StepWorker, "_keep_alive", never)


def waiter_of_an_item_lost(patch: pytest.MonkeyPatch) -> None:
    real = perform.new_assignment

    async def changed(*args: Any) -> Assignment:
        made = await real(*args)
        return made.model_copy(update={"waiter": made.run_id})

    patch.setattr(perform, "new_assignment", changed)


def handing_back_keeps_the_lease(patch: pytest.MonkeyPatch) -> None:
    real = rules.releasing

    def changed(token: int, nonce: str) -> rules.Rule[Assignment | None]:
        def rule(found: Assignment | None) -> tuple[Assignment | None, Assignment | None]:
            back, _ = real(token, nonce)(found)
            return (back, found) if back is not None else (None, None)

        return rule

    patch.setattr(rules, "releasing", changed)


def gives_up_while_answering(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Held, "is_answering", property(lambda _: False, lambda _, __: None))


def an_answer_for_another_attempt_counts(patch: pytest.MonkeyPatch) -> None:
    real = rules.finishing

    def changed(token: int, nonce: str, ref: Any, now: Any) -> Any:
        def rule(found: Assignment | None) -> Any:
            latest = token if found is None else found.token
            if found is not None and token != found.token:
                found = found.model_copy(update={"nonce_sha256": rules.nonce_sha256(nonce)})
            return real(latest, nonce, ref, now)(found)

        return rule

    patch.setattr(rules, "finishing", changed)


def anybody_may_answer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_not_holder", lambda found, token, nonce: rules._refusal(found, token))


def answers_are_not_stored(patch: pytest.MonkeyPatch) -> None:
    async def told_only(self: StepWorker, held: Held, ref: Any) -> bool:
        return True

    patch.setattr(StepWorker, "_finish", told_only)


def results_wake_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bus_step_results, "tell_step_ended", _says_nothing)


FAULTS = (
    Fault("the sweep takes steps back and finds ends, and tells nobody", silent_sweep),
    Fault("the sweep does not send commands again", sweep_sends_nothing),
    Fault("the sweep does not take back what lapsed", sweep_takes_nothing_back),
    Fault("workers do not renew their leases", no_heartbeats),
    Fault("of an item of a map the run is told, and not the part that waits", waiter_of_an_item_lost),
    Fault("a step that is handed back stays leased", handing_back_keeps_the_lease),
    Fault("a worker gives up over the heartbeat that its own answer made void", gives_up_while_answering),
    Fault("an answer under another fencing token counts", an_answer_for_another_attempt_counts),
    Fault("an answer counts without the nonce of the lease", anybody_may_answer),
    Fault("a worker tells of its answer and does not store it", answers_are_not_stored),
    Fault("a result is stored and nobody is woken", results_wake_nobody),
)
