"""Answers of workers: each is stored for the step it belongs to, then whoever waits for that step is told.

A message that is none goes to the dead letters at once, with its reason: delivering it again would not make it one. An answer
that does not count is on record and done with.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from engine.domain.errors import LivoaError
from engine.ports.deps import Deps, DepsProvider
from engine.step_runner import parse_result, take_back
from triggers.http_adapter import CLIENT_PARAMETER, DurableClient
from triggers.starting import tell_step_ended

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

CONNECTION = "LIVOA_BUS_CONNECTION"
"""Under which name the host looks the namespace up: a connection string, or with ``__fullyQualifiedNamespace`` an address."""
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


async def take_result(message: Message, deps: Deps, client: DurableClient) -> None:
    """Take one answer in, or put aside what is none. Raises what a store raises that stays away, and ``LivoaError`` when it
    cannot be put aside: then it is delivered again."""
    try:
        result = parse_result(message.get_body())
    except LivoaError as err:
        _LOG.error("a message of the results' queue is none: %s", err.message, extra={"code": err.code})
        await deps.step_results.dead_letter(str(message.lock_token), err.code, err.message)
        return
    assignment = await take_back(result, deps)
    if assignment is not None:
        await tell_step_ended(assignment, client)


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
