"""Run a capability and check what it gives: whatever happens becomes an answer of the contract."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

from pydantic import BaseModel

from agent_kit.agent import CapabilityError, Registered, StepContext
from engine.domain.base import JsonValue
from engine.domain.capability import Capability
from engine.domain.execute import (
    MAX_RESPONSE_BYTES,
    RESULT_UNKNOWN,
    ExecuteError,
    ExecuteFailed,
    ExecuteResponse,
    ExecuteSucceeded,
    Usage,
)

_LOG = logging.getLogger("agent_kit")
_NOT_JSON = object()
"""What stands for an output that cannot be written."""


async def perform(registered: Registered, context: StepContext) -> ExecuteResponse:
    """Run the capability. Whatever it raises becomes a typed error; an unexpected one says no more than that it happened.

    Being stopped is no error: ``asyncio.CancelledError`` goes through, unless nobody stopped it.
    """
    try:
        inputs = registered.parse(context.request.inputs)
        context.begun = True
        result = await registered.handler(inputs, context)
    except CapabilityError as error:
        if error.error.code != RESULT_UNKNOWN:
            context.begun = False
        return ExecuteFailed(error=error.error)
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and _is_stopped(context):
            raise
        # The type and place are for the agent's operator; a message could hold data and stays out of the log.
        place = place_of(error)
        _LOG.error("capability failed", extra={"error_type": type(error).__name__, "error_place": place})
        return result_unknown(registered.manifest, "The capability failed unexpectedly.", otherwise="agent.internal")
    return _checked(registered, context, _as_json(result))


def _is_stopped(context: StepContext) -> bool:
    """False when the capability waited for something of its own that was cancelled: an error that nobody expected."""
    task = asyncio.current_task()
    return context.cancelled or context.overdue or task is None or task.cancelling() > 0


def failed(code: str, message: str, *, retryable: bool = False) -> ExecuteFailed:
    """A failure in the kit's own words."""
    return ExecuteFailed(error=ExecuteError(code=code, message=message, retryable=retryable))


def result_unknown(manifest: Capability, message: str, *, otherwise: str) -> ExecuteFailed:
    """What an execution comes to that may have had its effect: the last word, or ``otherwise`` where it may be repeated."""
    if manifest.is_repeatable:
        return failed(otherwise, message, retryable=True)
    return failed(RESULT_UNKNOWN, f"{message} Whether it had its effect is not known.")


def _checked(registered: Registered, context: StepContext, output: JsonValue) -> ExecuteResponse:
    problem = "" if _is_json(output) else "the output is not JSON"
    if not problem:
        found = registered.output_schema.violations(output, code="agent.output_invalid")
        problem = "; ".join(f"{violation.pointer or '/'}: {violation.message}" for violation in found[:5])
    usage = context.usage or Usage(cost_micro_usd=registered.manifest.cost.per_call_micro_usd)
    response = ExecuteSucceeded(output=output if not problem else None, usage=usage)
    if not problem and len(response.model_dump_json().encode()) > MAX_RESPONSE_BYTES:
        problem = f"the answer is larger than {MAX_RESPONSE_BYTES} bytes"
    if not problem:
        return response
    _LOG.error("output violates the manifest", extra={"capability": registered.manifest.name, "problem": problem[:500]})
    return failed("agent.contract_violation", problem[:1_000])


def _as_json(result: Any) -> JsonValue:
    if not isinstance(result, BaseModel):
        return result
    try:
        return result.model_dump(mode="json", exclude_none=True)
    except ValueError:
        return _NOT_JSON


def _is_json(value: JsonValue) -> bool:
    """False for anything that JSON cannot carry: NaN, infinity, half a character, other types, keys that are no strings."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if not all(isinstance(key, str) for key in node):
                return False
            stack.extend(node)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, float):
            if not math.isfinite(node):
                return False
        elif isinstance(node, str):
            if not _is_text(node):
                return False
        elif not (node is None or isinstance(node, int)):
            return False
    return True


def _is_text(text: str) -> bool:
    """False for half of a surrogate pair, which no UTF-8 can hold."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def place_of(error: BaseException) -> str:
    """Function and line where an exception was raised: safe to log, unlike its message."""
    place = "unknown"
    trace = error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
