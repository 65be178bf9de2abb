"""Reading and writing models through the payload store."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel

from engine.domain.run import PayloadRef, Run, RunRequest
from engine.ports.deps import Deps

Model = TypeVar("Model", bound=BaseModel)


async def load_request(run: Run, deps: Deps) -> RunRequest:
    """The request a run was submitted with."""
    data = await deps.payloads.get(run.tenant_id, run.run_id, run.request_ref)
    return RunRequest.model_validate_json(data)


async def load_json(run: Run, ref: PayloadRef, deps: Deps) -> Any:
    """The JSON value of a payload."""
    return json.loads(await deps.payloads.get(run.tenant_id, run.run_id, ref))


async def store_model(run: Run, model: BaseModel, deps: Deps) -> PayloadRef:
    """Store a model as JSON."""
    data = model.model_dump_json(exclude_none=True).encode()
    return await deps.payloads.put(run.tenant_id, run.run_id, data)
