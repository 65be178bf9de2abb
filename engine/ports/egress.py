"""What the egress guard refused on behalf of a run, for whoever keeps the run's evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EgressRefusal:
    """A destination that a step's call was not let through to, or a redirect that was not followed.

    ``host_sha256`` is the SHA-256 of ``host:port`` as the platform configured it, in its normal spelling; where a redirect
    wanted to lead is the answer's word and is not kept. ``key`` is the idempotency key of the call.
    """

    tenant_id: str
    run_id: str
    step_id: str
    item: int | None
    attempt: int
    key: str
    capability: str
    endpoint: str
    host_sha256: str
    code: str


class EgressLog(Protocol):
    """Takes what was refused."""

    async def refused(self, refusal: EgressRefusal) -> None:
        """Put it on record. Never raises: the call is refused whether or not that can be recorded."""
        ...


class NoEgressLog:
    """Where no evidence is kept."""

    async def refused(self, refusal: EgressRefusal) -> None:
        """See ``EgressLog``."""
