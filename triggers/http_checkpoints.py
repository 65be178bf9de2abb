"""HTTP functions for auditors: make a checkpoint of the own tenant's audit chain now, and fetch those there are.

A checkpoint holds counts and hashes only, and making one is on record by itself. Whoever distrusts this host takes the anchors
from where they are kept, and the public key from whoever holds the private one: being served here vouches for neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.domain.base import Frozen
from engine.domain.checkpoint import Checkpoint
from engine.domain.errors import ConflictError
from engine.ports.deps import DepsProvider
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response
from triggers.http_audit import AUDITORS, MAX_SEQ
from triggers.run_access import integer_query

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

MAX_CHECKPOINTS = 1_000


class SignedCheckpoint(Frozen):
    """A checkpoint as it is anchored: compact JWS (RFC 7515), ES256."""

    number: int
    jws: str


class CheckpointPage(Frozen):
    """Checkpoints with ``number`` above the one asked for, in order. Ask on with ``after=next_after`` while ``more`` is true."""

    tenant_id: str
    checkpoints: tuple[SignedCheckpoint, ...]
    next_after: int
    more: bool


async def make_checkpoint(call: Call) -> HttpResponse:
    """``POST /api/audit/checkpoints``: the latest checkpoint, made now unless there is nothing new to cover."""
    made = await call.deps.checkpoints.make(call.principal.tenant_id)
    if made is None:
        raise ConflictError("checkpoint.none", "The chain is empty, or this host makes no checkpoints.")
    return json_response(_shown(made))


def _shown(checkpoint: Checkpoint) -> dict[str, object]:
    return checkpoint.model_dump(mode="json")


async def list_checkpoints(call: Call) -> HttpResponse:
    """``GET /api/audit/checkpoints?after=&limit=``: the signed checkpoints of the caller's tenant."""
    after = integer_query(call, "after", default=0, low=0, high=MAX_SEQ)
    limit = integer_query(call, "limit", default=MAX_CHECKPOINTS, low=1, high=MAX_CHECKPOINTS)
    tenant_id = call.principal.tenant_id
    found = await call.deps.checkpoints.read(tenant_id, after=after, limit=limit)
    page = CheckpointPage(
        tenant_id=tenant_id,
        checkpoints=tuple(SignedCheckpoint(number=anchor.number, jws=anchor.jws) for anchor in found),
        next_after=found[-1].number if found else after,
        more=len(found) == limit,
    )
    return json_response(page.model_dump(mode="json"))


ENDPOINTS = (
    Endpoint("make_checkpoint", "POST", "audit/checkpoints", make_checkpoint, AUDITORS),
    Endpoint("list_checkpoints", "GET", "audit/checkpoints", list_checkpoints, AUDITORS),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
