"""For the tests of an agent: call a capability without HTTP, or serve the agent and call it as the orchestrator does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn

from agent_kit.agent import Agent, StepContext
from agent_kit.app import AgentLimits, create_app
from agent_kit.auth import AgentAuth, JwksFile
from agent_kit.authority import TOKEN_KEYS_FILE, Authority
from agent_kit.grants import GrantCheck
from agent_kit.idempotency import IdempotencyStore
from agent_kit.perform import failed, perform
from agent_kit.serve import listen
from engine.domain.base import JsonObject
from engine.domain.execute import ExecuteRequest, ExecuteResponse
from engine.domain.grants import GRANT_KEYS_FILE


async def call(agent: Agent, capability: str, inputs: JsonObject, *, tenant_id: str = "contoso") -> ExecuteResponse:
    """What a call comes to: inputs are held against the manifest, and so is the output. ``KeyError`` for an unknown name."""
    registered = agent.capabilities[capability]
    found = registered.input_schema.violations(inputs, code="agent.inputs_invalid")
    if found:
        return failed("agent.inputs_invalid", f"{found[0].pointer or '/'}: {found[0].message}")
    request = ExecuteRequest(
        tenant_id=tenant_id,
        run_id="test",
        step_id="test",
        attempt=1,
        capability=capability,
        inputs=inputs,
        idempotency_key="test/test",
        deadline_at=datetime.now(UTC) + timedelta(seconds=registered.manifest.timeout_s),
    )
    with ThreadPoolExecutor(max_workers=1) as executor:
        return await perform(registered, StepContext(request, registered.manifest, executor))


@asynccontextmanager
async def serving(agent: Agent, keys: Path, **limits: Any) -> AsyncIterator[str]:
    """The agent on a free port of this machine, with the authority of a folder; gives its address."""
    Authority.open(keys)
    app = create_app(
        agent,
        auth=AgentAuth(JwksFile(keys / TOKEN_KEYS_FILE)),
        grants=GrantCheck(JwksFile(keys / GRANT_KEYS_FILE)),
        store=IdempotencyStore(None),
        limits=AgentLimits(**({"drain_s": 2.0} | limits)),
    )
    listener = listen(0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    # Beside the public door on purpose: it would take over the test runner's signal handlers.
    task = asyncio.create_task(server._serve(sockets=[listener]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers a flag, no event
        await asyncio.sleep(0.005)
    try:
        yield "http://{}:{}".format(*listener.getsockname()[:2])
    finally:
        server.should_exit = True
        await task
