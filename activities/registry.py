"""Registration of every activity: the only place here that knows the Functions SDK."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any, cast

import azure.durable_functions as df

from activities import apart, steps
from activities import compose_answer as composing
from activities import plan_run as planning
from activities import repair_plan as repairing
from engine.domain import names
from engine.ports.deps import Deps, DepsProvider
from engine.step_runner import finish_run as finishing

_LOG = logging.getLogger("livoa.activities")


class ActivityError(Exception):
    """A surprise in an activity, named by type. Hosts write an exception's text into durable history and logs."""


async def guarded(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """The result of an activity. What it raises is logged by type and place, and goes on without its text."""
    try:
        return await work
    except Exception as err:
        _LOG.exception("activity failed")
        raise ActivityError(type(err).__name__) from None


_Registered = tuple[tuple[str, Any], ...]
"""Durable names and the functions that the worker calls. It accepts plain classes only in their annotations."""


def build(deps: DepsProvider) -> df.Blueprint:
    """A blueprint with one activity per durable name. ``deps`` is resolved at the first call, not while indexing."""
    blueprint = df.Blueprint()
    for name, function in _with_client(deps):
        built = blueprint.activity_trigger(input_name="payload", activity=name)(function)
        blueprint.durable_client_input(client_name="client")(built)
    for name, function in _alone(deps):
        blueprint.activity_trigger(input_name="payload", activity=name)(function)
    return blueprint


def _with_client(deps: DepsProvider) -> _Registered:
    """Activities that look at circuits or at other instances, which only a durable client leads to."""

    def through(client: object) -> Deps:
        """The dependencies, which reach entities through this client from now on."""
        resolved = deps()
        resolved.entities.use(client)
        return resolved

    async def plan_run(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # see _Registered
        return await guarded(planning.plan_run(payload, through(client)))

    async def repair_plan(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(repairing.repair_plan(payload, through(client)))

    async def perform_step(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(steps.perform(payload, through(client)))

    async def start_steps(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(apart.start_steps(payload, cast(Any, client)))

    async def tell_outcome(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(apart.tell_outcome(payload, cast(Any, client)))

    return (
        (names.PLAN_RUN, plan_run),
        (names.REPAIR_PLAN, repair_plan),
        (names.PERFORM_STEP, perform_step),
        (names.START_STEPS, start_steps),
        (names.TELL_OUTCOME, tell_outcome),
    )


def _alone(deps: DepsProvider) -> _Registered:
    async def expand_map(payload: dict) -> dict:  # type: ignore[type-arg]  # see _Registered
        return await guarded(steps.expand(payload, deps()))

    async def collect_map(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(steps.collect(payload, deps()))

    async def compose_answer(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(composing.compose_answer(payload, deps()))

    async def undo_step(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(steps.undo(payload, deps()))

    async def checkpoint_run(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(apart.checkpoint_run(payload))

    async def finish_run(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(finishing(payload, deps()))

    return (
        (names.EXPAND_MAP, expand_map),
        (names.COLLECT_MAP, collect_map),
        (names.COMPOSE_ANSWER, compose_answer),
        (names.UNDO_STEP, undo_step),
        (names.CHECKPOINT_RUN, checkpoint_run),
        (names.FINISH_RUN, finish_run),
    )
