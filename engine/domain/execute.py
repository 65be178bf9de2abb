"""The agent contract: body and answers of ``POST /execute``, shared by the engine, the agent kit and every agent.

An agent answers ``POST /execute`` in one of three ways: 200 with the result (``application/json``); 202 with ``ExecuteRunning``
for callers that send ``Prefer: respond-async``, who then ask ``GET /executions/{id}``; or, for callers that accept
``application/x-ndjson``, 200 with a line of ``ExecuteRunning`` for every progress and the result as the last one.
The id follows from tenant and idempotency key (``execution_id``): nobody has to be told an address.
``DELETE /executions/{id}`` asks to stop; it answers what became of the execution.

Headers: ``Authorization: Bearer`` (who calls), ``Livoa-Grant`` (what may be done, see ``engine.domain.grants``),
``Idempotency-Key`` (equal to ``idempotency_key``), ``traceparent`` (W3C).
Same key and same request: the stored success is answered again. Same key, other request: 422. In flight: 409.
The request is the pair (capability, inputs); attempt, deadline and trace do not count.
An execution that was cut off after it may have had its effect is not begun again under its key, unless its manifest says that it
is safe to repeat (``Capability.is_repeatable``): the key then answers ``RESULT_UNKNOWN``, not retryable (ADR 0014).
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.domain.base import Frozen, JsonObject, JsonValue, UtcDatetime
from engine.domain.ids import WireId

EXECUTE_AUDIENCE = "api://livoa-agents"
"""Audience of the token that agents accept by default."""

CONTRACT_VERSION = "1.0"
RESULT_UNKNOWN = "agent.result_unknown"
"""The effect may have happened, nobody knows, and nobody will under this key: the last word on a call."""
LEAVES_OPEN = frozenset(
    {"agent.timeout", "agent.unreachable", "agent.execution_lost", "agent.lease_lost", RESULT_UNKNOWN}
)
"""Codes that leave open whether a capability that is not safe to repeat had its effect (ADR 0014)."""
MAY_HAVE_HAD_ITS_EFFECT = "It may have had its effect: look before doing it again."
"""What the message of such a failure ends with."""
MAX_REQUEST_BYTES = 256 * 1024
MAX_RESPONSE_BYTES = 1024 * 1024
MAX_USAGE = 10**12
"""No call costs a million dollars or reads as many tokens; beyond it, accounts and records could not hold the figure."""


class ExecuteRequest(Frozen):
    """One call of one capability for one step. ``attempt`` counts from 1; the answer must come before ``deadline_at``.

    ``plan_hash`` names the checked plan that the step belongs to.
    """

    tenant_id: WireId
    run_id: WireId
    step_id: WireId
    item: int | None = None
    attempt: int = Field(ge=1)
    capability: str
    inputs: JsonObject
    idempotency_key: str = Field(min_length=1, max_length=300)
    deadline_at: UtcDatetime
    plan_hash: str = Field(default="", max_length=100)


class Usage(Frozen):
    """What the call cost, as the agent knows it. Absent figures fall back to the manifest's cost model."""

    cost_micro_usd: int | None = Field(default=None, ge=0, le=MAX_USAGE)
    input_tokens: int = Field(default=0, ge=0, le=MAX_USAGE)
    output_tokens: int = Field(default=0, ge=0, le=MAX_USAGE)


class ExecuteSucceeded(Frozen):
    """The capability's output; it must fit the manifest's ``output_schema``."""

    status: Literal["succeeded"] = "succeeded"
    output: JsonValue
    usage: Usage = Usage()


_CODE = re.compile(r"[a-z][a-z0-9_]{0,40}(\.[a-z0-9_]{1,60}){1,3}")
ENGINE_WORDS = frozenset(
    "activity answer approval audit bind breaker budget payload plan policy run settings step store tenants".split()
)
"""First words of codes that only the engine gives: an agent cannot make its failure look like a decision of ours."""


def is_callees_code(code: str, words: frozenset[str] = ENGINE_WORDS) -> bool:
    """Whether a code may be kept that comes from outside. Codes go into durable history, spans, logs and the audit chain, so a
    code must be one and not a sentence, and must not begin with one of ``words``."""
    return _CODE.fullmatch(code) is not None and code.partition(".")[0] not in words


class ExecuteError(Frozen):
    """A typed error. ``code`` is stable; ``retryable`` says whether the same call may succeed later."""

    code: str = Field(min_length=1, max_length=100)
    message: str = Field(default="", max_length=2_000)
    retryable: bool = False
    retry_after_s: float | None = Field(default=None, ge=0)


class ExecuteFailed(Frozen):
    """The capability could not do it."""

    status: Literal["failed"] = "failed"
    error: ExecuteError


class ExecuteProgress(Frozen):
    """How far an execution is: a ``fraction`` from 0 to 1 where it is known, and words for people. No data."""

    fraction: float | None = Field(default=None, ge=0, le=1)
    message: str = Field(default="", max_length=200)


class ExecuteRunning(Frozen):
    """The execution goes on."""

    status: Literal["running"] = "running"
    execution_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    progress: ExecuteProgress | None = None


ExecuteResponse = Annotated[ExecuteSucceeded | ExecuteFailed, Field(discriminator="status")]
EXECUTE_RESPONSE: TypeAdapter[ExecuteResponse] = TypeAdapter(ExecuteResponse)

ExecuteUpdate = Annotated[ExecuteRunning | ExecuteSucceeded | ExecuteFailed, Field(discriminator="status")]
"""What ``/executions/{id}`` answers, and what the lines of a stream are."""
EXECUTE_UPDATE: TypeAdapter[ExecuteUpdate] = TypeAdapter(ExecuteUpdate)

NDJSON = "application/x-ndjson"


def execution_id(tenant_id: str, idempotency_key: str) -> str:
    """The id of the execution that a call leads to: the same for every attempt of a step."""
    return hashlib.sha256(f"{tenant_id}/{idempotency_key}".encode()).hexdigest()[:32]
