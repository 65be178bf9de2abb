"""Replies of models, kept so that a crashed activity does not pay twice, and a durable count of the requests made for one.

Rows hold references and facts; the text itself lives in the payload store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.domain.errors import LivoaError
from engine.domain.run import PayloadRef
from engine.ports.models import ModelUsage


@dataclass(frozen=True, slots=True)
class ModelCallKey:
    """What makes two calls the same. ``prompt_sha256`` covers messages, schema and parameters."""

    tenant_id: str
    run_id: str
    plan_version: int
    node: str
    prompt_sha256: str


@dataclass(frozen=True, slots=True)
class ModelResultRecord:
    """One final result: a reply (``output`` refers to its text), or a failure that asking again would only repeat (``code``).

    ``request`` is the number of the request that brought it.
    """

    request: int
    deployment: str
    model: str
    finish_reason: str
    usage: ModelUsage
    cost_micro_usd: int
    latency_s: float
    output: PayloadRef | None = None
    code: str | None = None


class ModelResults(Protocol):
    """Results by key."""

    async def get(self, key: ModelCallKey) -> ModelResultRecord | None:
        """The result of ``key``, or None."""
        ...

    async def begin(self, key: ModelCallKey) -> int:
        """Count one more request for ``key``, durably, and return its number, from 1. Every call gets another number."""
        ...

    async def put(self, key: ModelCallKey, result: ModelResultRecord) -> ModelResultRecord:
        """Keep ``result`` and return it; when ``key`` has one already, that one stands and is returned.

        ``LivoaError("store.unavailable")`` when no request was begun under ``key``."""
        ...


class NoModelResults:
    """A platform that keeps no model results: it has nothing to give back, and no request may begin."""

    async def get(self, key: ModelCallKey) -> ModelResultRecord | None:
        """None."""
        return None

    async def begin(self, key: ModelCallKey) -> int:
        """Refused: a request that is not counted might be paid for twice."""
        raise _nowhere()

    async def put(self, key: ModelCallKey, result: ModelResultRecord) -> ModelResultRecord:
        """Refused."""
        raise _nowhere()


def _nowhere() -> LivoaError:
    return LivoaError("store.unavailable", "there is no place to keep model results", status=503)
