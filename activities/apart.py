"""Calls of a run that instances of their own carry out: starting these, looking what became of them, and telling their outcomes.

Everything may be asked twice. The same call has the same instance, whatever it is performs a step once, and whoever hears an
outcome twice takes no notice.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Protocol

from engine.domain import names
from engine.scheduler.answers import step_crash

_LOG = logging.getLogger("livoa.runs")

_AT_ONCE = 8
_PAUSES_S = (0.1, 0.5, 2.0)
"""Before another try while the durable engine cannot be reached; after that the orchestration asks again."""
_ENDED = frozenset({"Completed", "Failed", "Terminated", "Canceled"})


class DurableClient(Protocol):
    """What is needed of ``DurableOrchestrationClient``."""

    async def start_new(
        self, orchestration_function_name: str, instance_id: str | None = None, client_input: Any | None = None
    ) -> str:
        """Start an instance. One that runs under this id already is refused; a finished one is replaced."""
        ...

    async def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> None:
        """Send an event. Raises when the instance does not exist or is over."""
        ...

    async def get_status(self, instance_id: str) -> Any:
        """The status; its ``instance_id`` is None when there is no such instance."""
        ...


async def start_steps(payload: dict[str, Any], client: DurableClient) -> dict[str, Any]:
    """Input ``{tenant_id, run_id, again, starts: [{call, work}]}``; result ``{"ended": {call: outcome}}``.

    Those that are over are in the result. ``again`` says that they may have been started, which this activity cannot rule out
    either way: it may be a second delivery. Raises what the client raises.
    """
    run_id = payload["run_id"]
    slots = asyncio.Semaphore(_AT_ONCE)
    ended: dict[str, Any] = {}

    async def ensure(start: dict[str, Any]) -> None:
        async with slots:
            outcome = await _ensured(start, run_id, client)
        if outcome is not None:
            ended[start["call"]] = outcome

    async with asyncio.TaskGroup() as group:
        for start in payload["starts"]:
            group.create_task(ensure(start))
    return {"ended": ended}


async def tell_outcome(payload: dict[str, Any], client: DurableClient) -> dict[str, Any]:
    """Input ``{waiter, call, outcome}``: raise it as an event. Whoever is over waits for nothing.

    Raises what the client raises.
    """
    waiter = payload["waiter"]
    try:
        await client.raise_event(waiter, names.outcome_event(payload["call"]), payload["outcome"])
    except Exception:
        if await _status(waiter, client) not in (None, *_ENDED):
            raise
    return {}


async def checkpoint_run(payload: dict[str, Any]) -> dict[str, Any]:
    """Input ``{tenant_id, run_id, generation}``. It is there to be awaited (ADR 0001)."""
    _LOG.info(
        "run goes on in a fresh history", extra={"run_id": payload["run_id"], "generation": payload["generation"]}
    )
    return {}


async def _ensured(start: dict[str, Any], run_id: str, client: DurableClient) -> Any:
    """Start it unless it is there; its outcome when it is over. The engine would replace one that is, and a part of a map that
    stopped at a failed item would then begin those it never began."""
    instance_id = names.apart_id(run_id, start["call"])
    for pause_s in (*_PAUSES_S, None):
        try:
            if (known := await client.get_status(instance_id)) and known.instance_id:
                return _outcome(known)
            given = {"waiter": run_id, "call": start["call"], "work": start["work"]}
            await client.start_new(names.STEP_ORCHESTRATOR, instance_id, given)
            return None
        except Exception:
            # The engine refuses a second instance under a live id, with an exception that cannot be told from others.
            if await _exists(instance_id, client):
                return None
            if pause_s is None:
                raise
        await asyncio.sleep(pause_s)
    return None


def _outcome(known: Any) -> Any:
    status = _name(known)
    if status not in _ENDED:
        return None
    if status != "Completed":
        return step_crash().model_dump(mode="json", exclude_none=True)
    output = known.output
    return json.loads(output) if isinstance(output, str) else output


async def _exists(instance_id: str, client: DurableClient) -> bool:
    try:
        return await _status(instance_id, client) is not None
    except Exception:
        return False


async def _status(instance_id: str, client: DurableClient) -> str | None:
    """The name of its status; None when there is no such instance."""
    known = await client.get_status(instance_id)
    return _name(known) if known is not None and known.instance_id else None


def _name(known: Any) -> str:
    return str(getattr(known.runtime_status, "value", known.runtime_status))
