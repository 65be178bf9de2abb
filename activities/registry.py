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

_WITH_CLIENT = frozenset({names.PLAN_RUN, names.REPAIR_PLAN, names.PERFORM_STEP, names.START_STEPS, names.TELL_OUTCOME})
"""Activities that look at circuits or at other instances, which only a durable client leads to."""
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


def build(deps: DepsProvider) -> df.Blueprint:
    """A blueprint with one activity per durable name. ``deps`` is resolved at the first call, not while indexing."""
    blueprint = df.Blueprint()

    def through(client: object) -> Deps:
        """The dependencies, which reach entities through this client from now on."""
        resolved = deps()
        resolved.entities.use(client)
        return resolved

    async def plan_run(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # the worker accepts plain classes only
        return await guarded(planning.plan_run(payload, through(client)))

    async def repair_plan(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(repairing.repair_plan(payload, through(client)))

    async def perform_step(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(steps.perform(payload, through(client)))

    async def expand_map(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(steps.expand(payload, deps()))

    async def collect_map(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(steps.collect(payload, deps()))

    async def compose_answer(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(composing.compose_answer(payload, deps()))

    async def undo_step(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(steps.undo(payload, deps()))

    async def start_steps(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(apart.start_steps(payload, cast(Any, client)))

    async def tell_outcome(payload: dict, client: str) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(apart.tell_outcome(payload, cast(Any, client)))

    async def checkpoint_run(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(apart.checkpoint_run(payload))

    async def finish_run(payload: dict) -> dict:  # type: ignore[type-arg]  # as above
        return await guarded(finishing(payload, deps()))

    registered: tuple[tuple[str, Any], ...] = (
        (names.PLAN_RUN, plan_run),
        (names.REPAIR_PLAN, repair_plan),
        (names.PERFORM_STEP, perform_step),
        (names.EXPAND_MAP, expand_map),
        (names.COLLECT_MAP, collect_map),
        (names.COMPOSE_ANSWER, compose_answer),
        (names.UNDO_STEP, undo_step),
        (names.START_STEPS, start_steps),
        (names.TELL_OUTCOME, tell_outcome),
        (names.CHECKPOINT_RUN, checkpoint_run),
        (names.FINISH_RUN, finish_run),
    )
    for name, function in registered:
        built = blueprint.activity_trigger(input_name="payload", activity=name)(function)
        if name in _WITH_CLIENT:
            blueprint.durable_client_input(client_name="client")(built)
    return blueprint
