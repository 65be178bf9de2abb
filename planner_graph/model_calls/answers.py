"""What goes into a model call and what comes out of it, as the planner and the composer see it. No behaviour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from engine.domain.base import JsonValue
from engine.domain.errors import Violation
from engine.domain.tenant import TenantConfig
from engine.ports.budget import Share
from engine.ports.models import ModelUsage


@dataclass(frozen=True, slots=True)
class CallSite:
    """Who asks, for which run, and by when.

    ``node`` names the place in the planner or the composer (``classify``, ``plan``, ``repair.1``, ``answer`` …; the alphabet of
    wire ids). A result is kept under (run, ``plan_version``, ``node``, hash of the prompt): asking the same again is answered
    with it. ``run_id`` must have a budget account (``BudgetLedger.open``), or no call is made; ``share`` is the part of it that
    the calls of this site are paid from, if not from all of it.
    """

    tenant: TenantConfig
    run_id: str
    actor: str
    plan_version: int
    node: str
    deadline_at: datetime
    traceparent: str | None = None
    share: Share | None = None


@dataclass(frozen=True, slots=True)
class PromptFile:
    """The versioned file a prompt was made from: its name and the SHA-256 of its text. Both stand in the audit record."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Hop:
    """A deployment that was tried, or passed over, and why (a stable code such as ``model.timeout``)."""

    deployment: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """The facts of a reply. Never content. ``reused``: it was kept from before, and nothing was paid for it now."""

    deployment: str
    model: str
    finish_reason: str
    usage: ModelUsage
    cost_micro_usd: int
    latency_s: float
    seed: int
    prompt_sha256: str
    output_sha256: str
    requests: int
    """Requests made under this key so far, failed ones and those of earlier deliveries included."""
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply. With a schema ``value`` is the JSON that fits it; without one ``value`` is the text."""

    value: JsonValue
    text: str
    reply: ReplyFacts
    hops: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No usable reply.

    ``code`` is a ``FailureCode`` or one of ``model.breaker_open`` (every deployment's circuit is open), ``model.deadline`` (no
    time left for a call), ``model.over_budget`` (a stream wrote more than it may), ``model.requests_exhausted`` (too many
    requests under one key), ``budget.exhausted``, ``budget.not_open``, ``audit.unavailable``, or the code of a store's error.
    ``repairable``: the model answered, but not usably (``model.invalid_output``, ``model.truncated``); then
    ``text_for_repair`` is what it wrote, cut to a bound (empty when unknown), and ``violations`` say what is wrong with it
    without repeating it. ``reply`` has the facts where there was a reply.
    """

    code: str
    hops: tuple[Hop, ...] = ()
    repairable: bool = False
    text_for_repair: str = ""
    violations: tuple[Violation, ...] = ()
    reply: ReplyFacts | None = None


Asked: TypeAlias = Answered | Unanswered

OnDelta = Callable[[str], Awaitable[None]]
"""Takes the next piece of a streamed reply."""

OnRestart = Callable[[str], Awaitable[None]]
"""Told (with the reason's code) that the pieces so far are void and the text begins anew, from another request."""


async def _ignore(_: Any) -> None:
    """Nobody wants to know."""


IGNORE: OnRestart = _ignore
