"""HTTP functions that steer a run under way: suspend, resume, terminate. Cancelling is beside submitting, in `http_runs`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from engine.domain.base import Frozen
from engine.domain.errors import LivoaError
from engine.domain.run import Run
from engine.domain.strict_json import parse
from engine.domain.tenant import PLATFORM_MAX_JSON_DEPTH
from engine.ports.deps import DepsProvider
from triggers import run_control
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response, read_body
from triggers.run_access import SUBMITTERS, run_of
from triggers.submission import require_json, violations_of
from triggers.views import run_path, summary_of

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint


class ResumeRequest(Frozen):
    """How to go on: with a higher budget in micro-USD, or as before."""

    max_cost_micro_usd: int | None = Field(default=None, ge=1, le=10**12)


async def suspend_run(call: Call) -> HttpResponse:
    """``POST /api/runs/{run_id}/suspend``: 202; what has begun ends, nothing starts. Asking again changes nothing."""
    return _accepted(await run_control.suspend(await run_of(call), call))


async def resume_run(call: Call) -> HttpResponse:
    """``POST /api/runs/{run_id}/resume`` with ``{}`` or ``{"max_cost_micro_usd": n}``: 202."""
    run = await run_of(call)
    request = await _resume_of(call)
    return _accepted(await run_control.resume(run, call, request.max_cost_micro_usd))


async def terminate_run(call: Call) -> HttpResponse:
    """``POST /api/runs/{run_id}/terminate``: 200 with the run, which is over."""
    return json_response(summary_of(await run_control.terminate(await run_of(call), call)).model_dump(mode="json"))


def _accepted(run: Run) -> HttpResponse:
    return json_response(summary_of(run).model_dump(mode="json"), 202, (("location", run_path(run.run_id)),))


async def _resume_of(call: Call) -> ResumeRequest:
    """The body; none at all means ``{}``, as clients of durable functions send it."""
    limit = call.deps.settings.max_body_bytes
    data = await read_body(call.request, limit)
    if not data:
        return ResumeRequest()
    require_json(call.request)
    value = parse(data, max_bytes=limit, max_depth=PLATFORM_MAX_JSON_DEPTH)
    try:
        return ResumeRequest.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as err:
        message = "The request is not valid; see errors."
        raise LivoaError("request.invalid", message, status=422, violations=violations_of(err)) from None


ENDPOINTS = (
    Endpoint("suspend_run", "POST", "runs/{run_id}/suspend", suspend_run, SUBMITTERS, needs_client=True),
    Endpoint("resume_run", "POST", "runs/{run_id}/resume", resume_run, SUBMITTERS, needs_client=True),
    Endpoint("terminate_run", "POST", "runs/{run_id}/terminate", terminate_run, SUBMITTERS, needs_client=True),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
