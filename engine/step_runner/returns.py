"""What a worker sends back, held against the assignment: only who holds the lease of the latest attempt may answer."""

from __future__ import annotations

import hashlib
import logging
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.bus import Assignment, StepCommand, StepResult
from engine.domain.errors import LivoaError
from engine.domain.strict_json import parse
from engine.ports.assignments import Finished
from engine.ports.deps import Deps
from engine.step_runner.persistence import persistently

MAX_MESSAGE_BYTES = 64 * 1024
M = TypeVar("M", bound=BaseModel)

_LOG = logging.getLogger("livoa.bus")


def parse_result(body: bytes) -> StepResult:
    """The result in a message. ``LivoaError("bus.result_invalid")`` names the fields that are wrong, not their content."""
    return _parsed(StepResult, body, "bus.result_invalid")


def parse_command(body: bytes) -> StepCommand:
    """The command in a message. ``LivoaError("bus.command_invalid")`` likewise."""
    return _parsed(StepCommand, body, "bus.command_invalid")


def _parsed(model: type[M], body: bytes, code: str) -> M:
    try:
        return model.model_validate(parse(body, max_bytes=MAX_MESSAGE_BYTES))
    except LivoaError as err:
        raise LivoaError(code, f"the message is no acceptable JSON: {err.code}") from None
    except ValidationError as err:
        # A field that there is not may be named anything.
        names = {str(one["loc"][0]) if one["loc"] else "" for one in err.errors(include_input=False)}
        known = sorted(name if name in model.model_fields else "(unknown)" for name in names)
        raise LivoaError(code, f"the message does not have the right form at: {', '.join(known)}") from None


async def take_back(result: StepResult, deps: Deps) -> Assignment | None:
    """Store the answer of who holds the step. None when it does not count, which is on record.

    The same answer again finds it stored. Raises what the store raises.
    """
    of = (result.tenant_id, result.run_id, result.key)
    now = deps.clock.now()
    answer = await persistently(
        lambda: deps.assignments.finish(
            *of, result.token, nonce=result.nonce, response_ref=result.response_ref, now=now
        )
    )
    if isinstance(answer, Finished):
        return answer.assignment
    _LOG.warning("a worker's answer does not count", extra={"run_id": result.run_id, "code": answer.reason})
    known = await deps.assignments.get(*of)
    if known is not None:  # otherwise anybody who can send could fill somebody's chain
        await persistently(lambda: deps.audit.append(_refused(known, result, answer.reason, deps)))
    return None


def _refused(known: Assignment, result: StepResult, reason: str, deps: Deps) -> AuditEntry:
    key = hashlib.sha256(known.key.encode()).hexdigest()[:24]
    body = {"step": known.step_id, "reason": reason, "token": result.token, "latest_token": known.token}
    return AuditEntry(
        tenant_id=known.tenant_id,
        # Without the token, so that many forged ones are one record.
        entry_id=f"{known.run_id}/{key}/{reason}/{AuditType.RESULT_REFUSED.value}",
        type=AuditType.RESULT_REFUSED,
        at=deps.clock.now(),
        run_id=known.run_id,
        actor=f"worker:{known.worker or 'unknown'}",
        body=body if known.item is None else {**body, "item": known.item},
    )
