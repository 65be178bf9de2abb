"""Answers of workers: each is stored for the step it belongs to, then whoever waits for that step is told.

A message that is none goes to the dead letters at once, with its reason: delivering it again would not make it one. An answer
that does not count is on record and done with. One that comes while a store is away is put off as a message of its own, because
that is no failed delivery of it; meanwhile the sweep tells of every answer that the worker could store itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from engine.domain.errors import LivoaError
from engine.domain.run_messages import POSTPONED
from engine.ports.deps import Deps, DepsProvider
from engine.step_runner import parse_result, record_meanwhile, take_back
from triggers.http_adapter import CLIENT_PARAMETER, DurableClient
from triggers.starting import tell_step_ended

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

T = TypeVar("T")
CONNECTION = "LIVOA_BUS_CONNECTION"
"""Under which name the host looks the namespace up: a connection string, or with ``__fullyQualifiedNamespace`` an address."""
STORE_ANSWERS_S = 15.0
"""A store that hangs for longer is away. With the 20 s that putting off may take, that is less than the lock of the queue."""
PUT_OFF_PAUSES_S = (5.0, 10.0, 20.0, 40.0, 60.0)
MAX_PUT_OFF = 120
"""How often an answer comes again while a store cannot be reached: for about two hours in all, as commands do."""
_LOG = logging.getLogger("livoa.bus")


class Message(Protocol):
    """The part of ``azure.functions.ServiceBusMessage`` that is used."""

    def get_body(self) -> bytes:
        """Its body."""
        ...

    @property
    def lock_token(self) -> str | None:
        """What it is held under until the function returns."""
        ...

    @property
    def message_id(self) -> str | None:
        """Its id."""
        ...

    @property
    def application_properties(self) -> Mapping[str, Any] | None:
        """What its sender says about it."""
        ...


async def take_result(message: Message, deps: Deps, client: DurableClient) -> None:
    """Take one answer in, put it off while a store is away, or put aside what is none.

    Raises ``LivoaError`` when it can be neither put off nor put aside: then it is delivered again.
    """
    try:
        result = parse_result(message.get_body())
    except LivoaError as err:
        _LOG.error("a message of the results' queue is none: %s", err.message, extra={"code": err.code})
        await deps.step_results.dead_letter(str(message.lock_token), err.code, err.message)
        return
    try:
        assignment = await _within_a_lock(take_back(result, deps))
    except LivoaError as err:
        if err.status < 500:
            raise
        await _put_off(message, err, deps)
        return
    if assignment is not None:
        await record_meanwhile(assignment, deps)
        await tell_step_ended(assignment, client)


async def _within_a_lock(work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(STORE_ANSWERS_S):
            return await work
    except TimeoutError:
        raise LivoaError("store.unavailable", "the store does not answer", status=503) from None


async def _put_off(message: Message, err: LivoaError, deps: Deps) -> None:
    """Let an answer come again later. What is lost between that and the end of this delivery comes twice, which is once."""
    times = _times_put_off(message) + 1
    if times > MAX_PUT_OFF:
        _LOG.error("an answer is a dead letter", extra={"code": err.code})
        await deps.step_results.dead_letter(str(message.lock_token), err.code, err.message)
        return
    pause_s = PUT_OFF_PAUSES_S[min(times, len(PUT_OFF_PAUSES_S)) - 1]
    _LOG.warning("an answer is put off", extra={"code": err.code, "times": times})
    await deps.step_results.postpone(message.get_body(), str(message.message_id or ""), times=times, delay_s=pause_s)


def _times_put_off(message: Message) -> int:
    """What the message says of itself; anybody may have written it, so it is bounded and only shortens its life."""
    said = (message.application_properties or {}).get(POSTPONED, 0)
    return min(said, MAX_PUT_OFF) if type(said) is int and said > 0 else 0


def build(deps: DepsProvider, *, queue: str) -> Blueprint:
    """The blueprint of the trigger on ``queue``."""
    from azure.durable_functions import Blueprint
    from azure.functions import ServiceBusMessage

    async def bus_step_results(message: Any, client: Any) -> None:
        await take_result(message, deps(), client)

    bus_step_results.__annotations__ = {"message": ServiceBusMessage, CLIENT_PARAMETER: str, "return": None}
    blueprint = Blueprint()
    function: Any = blueprint.service_bus_queue_trigger(arg_name="message", connection=CONNECTION, queue_name=queue)(
        bus_step_results
    )
    blueprint.durable_client_input(client_name=CLIENT_PARAMETER)(function)
    return blueprint
