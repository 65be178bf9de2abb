"""Steps that run elsewhere: what is sent over the bus, and who may answer for a step.

Messages hold ids, a token and references, never content: what a call is about lies in the run's payloads. Nothing in a message is
trusted; it is held against the assignment in the store, which alone says who asked for what.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, UtcDatetime
from engine.domain.ids import WireId
from engine.domain.run import PayloadRef

COMMANDS_QUEUE = "step-commands"
"""Default queue of the commands. With sessions: one is served by one worker at a time, in order."""
PUT_OFF = "Put-Off"
"""Application property of a command that came while the store was away: how often it was put off."""
RESULTS_QUEUE = "step-results"
"""Default queue of the results, read by the Functions app."""

SHARDS = 16
"""Sessions of one tenant: how many of its commands are received side by side."""

NONCE_PATTERN = r"^[A-Za-z0-9_-]{32,100}$"


class AssignmentStatus(StrEnum):
    """``queued`` until a worker leases it, ``leased`` until its answer is stored, then ``finished``; ``void`` once nobody's
    answer counts any more: its lease ran out, its deadline passed, its run ended or a later attempt began."""

    QUEUED = "queued"
    LEASED = "leased"
    FINISHED = "finished"
    VOID = "void"


class Assignment(Frozen):
    """One attempt of one step that a worker is to carry out. One row for each effect (``tenant_id``, ``key``); ``token``, the
    fencing token, grows with each attempt, and only who holds the latest may answer.

    ``key`` is the effect's idempotency key. ``request_ref`` is the ``ExecuteRequest`` as JSON, ``response_ref`` the
    ``ExecuteResponse`` once there is one. ``waiter`` is the durable instance that waits for ``event``. ``nonce_sha256`` is the
    hash of a secret that the lease was taken with: without it nobody can answer in the worker's name. ``void_reason`` says
    whether a later attempt may take up what the agent is at (``lapsed``: its worker was silent for a lease) or nothing of it may
    be done any more (``revoked``).
    """

    tenant_id: WireId
    run_id: WireId
    step_id: WireId
    item: int | None = None
    attempt: int = Field(ge=1)
    purpose: Literal["step", "fallback", "compensation"] = "step"
    key: str = Field(min_length=1, max_length=300)
    token: int = Field(default=1, ge=1)
    status: AssignmentStatus = AssignmentStatus.QUEUED
    capability: str
    plan_hash: str = ""
    request_ref: PayloadRef
    waiter: WireId
    created_at: UtcDatetime
    deadline_at: UtcDatetime
    lease_s: float = Field(gt=0, le=3600)
    worker: str | None = Field(default=None, max_length=100)
    nonce_sha256: str | None = None
    lease_until_at: UtcDatetime | None = None
    sent_at: UtcDatetime | None = None
    sends: int = Field(default=0, ge=0)
    response_ref: PayloadRef | None = None
    ended_at: UtcDatetime | None = None
    void_reason: Literal["lapsed", "revoked"] | None = None
    traceparent: str | None = None

    @property
    def event(self) -> str:
        """The external event that says: this assignment has ended, look into the store. One name for each attempt."""
        return step_finished_event(self.key, self.token)

    def stored(self) -> str:
        """As JSON for the stores, without what there is nothing to say of: workers are deployed apart from the app, and one that
        is a version behind refuses fields that it does not know."""
        return self.model_dump_json(exclude_none=True)

    @property
    def session_id(self) -> str:
        """Which session its command goes to: ``{tenant}--{shard}``."""
        return session_of(self.tenant_id, self.key)


class StepCommand(Frozen):
    """What is sent to a worker. ``message_id`` of the message: ``{key}#{token}``, and
    ``{key}#{token}.{n}`` when it is sent again for the n-th time."""

    version: Literal[1] = 1
    tenant_id: WireId
    run_id: WireId
    key: str = Field(min_length=1, max_length=300)
    token: int = Field(ge=1)
    capability: str = Field(min_length=1, max_length=100)
    deadline_at: UtcDatetime
    traceparent: str | None = Field(default=None, max_length=100)


class StepResult(Frozen):
    """What a worker sends back. Content is in the run's payloads (``response_ref``)."""

    version: Literal[1] = 1
    tenant_id: WireId
    run_id: WireId
    key: str = Field(min_length=1, max_length=300)
    token: int = Field(ge=1)
    nonce: str = Field(pattern=NONCE_PATTERN)
    response_ref: PayloadRef


def step_finished_event(key: str, token: int) -> str:
    """The external event of an effect's attempt. The key's slashes are not in the alphabet of event names, hence the hash."""
    return f"step-finished.{hashlib.sha256(key.encode()).hexdigest()[:32]}.{token}"


def session_of(tenant_id: str, key: str) -> str:
    """Which session the command of an effect goes to."""
    shard = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % SHARDS
    return f"{tenant_id}--{shard}"


def command_of(assignment: Assignment) -> StepCommand:
    """The command that hands the assignment to whoever receives it."""
    return StepCommand(
        tenant_id=assignment.tenant_id,
        run_id=assignment.run_id,
        key=assignment.key,
        token=assignment.token,
        capability=assignment.capability,
        deadline_at=assignment.deadline_at,
        traceparent=assignment.traceparent,
    )


def nonce_sha256(nonce: str) -> str:
    """How a lease's secret is kept."""
    return hashlib.sha256(nonce.encode()).hexdigest()
