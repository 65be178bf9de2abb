"""Runs submitted by message: the queue ``run-requests``, each message a signed envelope (ADR 0010).

From the envelope on, everything is as over HTTP: the same parse, checks, admission, idempotency and records, because it is the
same code. The id of the message is its idempotency key, so a message that is delivered or sent twice is one run.

What can never become a run goes to the dead letters at once, with the problem's code as the reason and the problem itself as the
description. What could not be done at the moment is tried again here with growing pauses, because a message that is given back is
delivered again at once; when several deliveries did not help, it goes to the dead letters with what was in the way. A message
that its tenant's quota does not let in is put off instead, so that a tenant that sends too much keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.domain import telemetry_names
from engine.domain.errors import LivoaError
from engine.domain.run import Run
from engine.domain.run_messages import MAX_REASON_CHARS, POSTPONED, RUN_REQUESTS_QUEUE
from engine.ports.deps import Deps, DepsProvider
from engine.ports.identity import Rejection, SignedRequest, Speaker, TokenRefusedError
from triggers.bus_step_results import CONNECTION
from triggers.endpoint import require_role, tenant_pseudonym
from triggers.http_adapter import CLIENT_PARAMETER, DurableClient
from triggers.problems import unexpected
from triggers.run_access import SUBMITTERS
from triggers.submission import submission_of, submit

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

MAX_TRIES = 6
"""Tries in one delivery."""
MAX_DELIVERIES = 5
"""Deliveries after which a message that still cannot be taken is a dead letter. Fewer than the queue's own limit, which knows no
reason and is for deliveries that end in a crash."""
LONGEST_PAUSE_S = 16.0
MAX_POSTPONED = 30
"""How often a message is put off for its tenant's quota: for about two hours in all."""
LONGEST_DELAY_S = 300.0
QUOTA = "quota.submissions"
MESSAGE_PARAMETER = "message"

_TEMPORARY = frozenset({"idempotency.in_flight"})
_LOG = logging.getLogger("livoa.bus")
Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Received:
    """A message under its lock. ``delivery_count`` counts this delivery, ``postponed`` how often it was put off."""

    body: bytes
    lock_token: str
    delivery_count: int = 1
    message_id: str = ""
    postponed: int = 0


class NotTakenError(Exception):
    """The message could not be taken now; the host gives it back to the queue."""


async def take(received: Received, deps: Deps, client: DurableClient, *, pause: Pause = asyncio.sleep) -> Run | None:
    """The run of a message, or None once it is a dead letter or put off.

    Raises ``NotTakenError`` when the queue should deliver it again, and ``LivoaError("bus.unavailable")`` when it cannot be made
    a dead letter, which has the same effect.
    """
    with deps.telemetry.span(f"receive {RUN_REQUESTS_QUEUE}", kind="consumer") as span:
        problem = LivoaError("internal.unexpected", "It was not tried.", status=500)
        for tried in range(1, MAX_TRIES + 1):
            try:
                run = await _submitted(received, deps, client, span.traceparent)
            except LivoaError as err:
                problem = err
            except Exception:
                incident = secrets.token_hex(8)
                problem = unexpected(incident)
                _LOG.exception("unexpected error", extra={"incident": incident, "queue": RUN_REQUESTS_QUEUE})
            else:
                span.set(telemetry_names.TENANT, tenant_pseudonym(run.tenant_id))
                span.set(telemetry_names.RUN_ID, run.run_id)
                _LOG.info("run request taken", extra={"run_id": run.run_id, "deliveries": received.delivery_count})
                return run
            if not is_temporary(problem):
                break
            if tried < MAX_TRIES:
                await pause(pause_s(problem, tried))
        span.fail(problem.code)
        await _give_up(received, problem, deps)
        return None


def is_temporary(problem: LivoaError) -> bool:
    """Whether the same message may be taken a little later."""
    return problem.status >= 500 or problem.code in _TEMPORARY


def pause_s(problem: LivoaError, tried: int) -> float:
    """How long to wait before the next try: twice as long each time, and no less than the problem says."""
    return min(max(float(2 ** (tried - 1)), float(problem.retry_after_s or 0)), LONGEST_PAUSE_S)


def description_of(problem: LivoaError) -> str:
    """The problem as JSON, as over HTTP, with as many of its places as a dead letter's description holds."""
    body: dict[str, Any] = {"code": problem.code, "status": problem.status, "detail": problem.message[:1_000]}
    places = [violation.model_dump() for violation in problem.violations]
    if not places and problem.pointer is not None:
        places = [{"code": problem.code, "pointer": problem.pointer, "message": problem.message}]
    for kept in range(len(places), -1, -1):
        listed = {"errors": places[:kept]} if kept else {}
        left_out = {"errors_left_out": len(places) - kept} if kept < len(places) else {}
        text = json.dumps(body | listed | left_out, separators=(",", ":"))
        if len(text) <= MAX_REASON_CHARS:
            return text
    return json.dumps({"code": problem.code, "status": problem.status})


async def _submitted(received: Received, deps: Deps, client: DurableClient, traceparent: str | None) -> Run:
    signed = await _admitted(received, deps)
    submission = submission_of(signed.request, signed.message_id)
    return await submit(submission, signed.principal, deps, client, traceparent=traceparent)


async def _admitted(received: Received, deps: Deps) -> SignedRequest:
    """What the envelope proves, when its sender may submit. Whoever is turned away is recorded, as at the HTTP door."""
    speaker: Speaker | None = None
    try:
        signed = await deps.envelopes.verify(received.body, max_bytes=deps.settings.max_body_bytes)
        principal = signed.principal
        speaker = Speaker(principal.tenant_id, principal.subject, principal.client_app)
        require_role(principal, SUBMITTERS)
    except LivoaError as err:
        if err.status < 500:
            known = err.speaker if isinstance(err, TokenRefusedError) else speaker
            await deps.rejections.record(Rejection(err.code, f"queue {RUN_REQUESTS_QUEUE}", known))
        raise
    return signed


async def _give_up(received: Received, problem: LivoaError, deps: Deps) -> None:
    facts = {"code": problem.code, "deliveries": received.delivery_count}
    if problem.code == QUOTA and received.postponed < MAX_POSTPONED:
        delay_s = min(max(2.0**received.postponed, float(problem.retry_after_s or 0)), LONGEST_DELAY_S)
        times = received.postponed + 1
        await deps.run_requests.postpone(received.body, received.message_id, times=times, delay_s=delay_s)
        _LOG.info("run request put off", extra=facts)
        return
    if is_temporary(problem) and received.delivery_count < MAX_DELIVERIES:
        _LOG.warning("run request not taken, it will be delivered again", extra=facts)
        raise NotTakenError(problem.code)
    _LOG.warning("run request is a dead letter", extra=facts)
    await deps.run_requests.dead_letter(received.lock_token, problem.code, description_of(problem))


def received_of(message: Any) -> Received:
    """A message of the trigger. Its properties are not signed: what they say is bounded and trusted for nothing else."""
    postponed = (message.application_properties or {}).get(POSTPONED, 0)
    return Received(
        body=message.get_body(),
        lock_token=str(message.lock_token),
        delivery_count=message.delivery_count or 1,
        message_id=str(message.message_id or ""),
        postponed=postponed if type(postponed) is int and 0 <= postponed <= MAX_POSTPONED else 0,
    )


def build(deps: DepsProvider) -> Blueprint:
    """The blueprint of the trigger."""
    from azure.durable_functions import Blueprint
    from azure.functions import ServiceBusMessage

    async def receive_run_request(message: Any, client: Any) -> None:
        await take(received_of(message), deps(), client)

    receive_run_request.__annotations__ = {
        MESSAGE_PARAMETER: ServiceBusMessage,
        CLIENT_PARAMETER: str,
        "return": None,
    }
    blueprint = Blueprint()
    function: Any = blueprint.service_bus_queue_trigger(
        arg_name=MESSAGE_PARAMETER, queue_name=RUN_REQUESTS_QUEUE, connection=CONNECTION
    )(receive_run_request)
    blueprint.durable_client_input(client_name=CLIENT_PARAMETER)(function)
    return blueprint
