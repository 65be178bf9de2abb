"""Execution grants: what an agent may do for one call. A compact JWS (RFC 7515, ES256) beside the token that says who calls.

The token lets an application knock at any agent at any time; the grant says which tenant, run, step, attempt, capability and
inputs it may ask for now. A stolen token alone does nothing, and a grant is worth nothing for any other call.
Grants are not counted: presenting one twice is the same call, which the idempotency key makes one execution.
"""

from __future__ import annotations

import hashlib

from pydantic import Field

from engine.domain.base import Frozen, JsonObject
from engine.domain.canonical import canonical_form
from engine.domain.execute import ExecuteRequest
from engine.domain.ids import WireId

GRANT_HEADER = "Livoa-Grant"
GRANT_TYPE = "livoa-grant+jwt"
"""``typ`` of the JWS header: no other signed text of the project can be taken for a grant."""
GRANT_ALGORITHM = "ES256"
GRANT_ISSUER = "livoa-orchestrator"
MAX_GRANT_BYTES = 4 * 1024
MAX_GRANT_LIFETIME_S = 300
"""A call must begin within it; what has begun goes on to its deadline."""
GRANT_KEYS_FILE = "grants/jwks.json"
"""Where a development stack publishes the keys, below its data folder."""


class Grant(Frozen):
    """The claims. ``iat`` and ``exp`` are Unix seconds; ``input_sha256`` is ``request_sha256`` of the call."""

    iss: str
    aud: str
    jti: str = Field(min_length=16, max_length=100)
    iat: int
    exp: int
    tenant_id: WireId
    run_id: WireId
    step_id: WireId
    item: int | None
    attempt: int = Field(ge=1)
    capability: str
    input_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    plan_hash: str
    idempotency_key: str


BOUND_FIELDS = ("tenant_id", "run_id", "step_id", "item", "attempt", "capability", "plan_hash", "idempotency_key")
"""Claims that must equal the field of that name in the request. ``input_sha256`` is compared with the request's hash."""


def request_sha256(capability: str, inputs: JsonObject) -> str:
    """What makes two calls the same: SHA-256 over the RFC 8785 form of ``{capability, inputs}``.

    Attempt, deadline and trace do not count. Raises ``ValueError`` for inputs that have no such form.
    """
    return hashlib.sha256(canonical_form({"capability": capability, "inputs": inputs})).hexdigest()


def differences(grant: Grant, request: ExecuteRequest) -> tuple[str, ...]:
    """The request's fields that the grant does not cover; none when it is for this very call."""
    found = [name for name in BOUND_FIELDS if getattr(grant, name) != getattr(request, name)]
    if grant.input_sha256 != request_sha256(request.capability, request.inputs):
        found.append("inputs")
    return tuple(found)
