"""Chat models behind named deployments. One call is one attempt: retries, budgets, breakers, audit and reuse are the caller's.

Prompts and completions go through here and nowhere else near logs, spans or errors: an implementation never repeats them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from engine.domain.base import JsonObject
from engine.domain.tenant import TenantConfig

ModelWork = Literal["router", "planner", "synthesiser"]
"""What a model is asked to do. Self-critique and repair are the planner's work."""

FailureCode = Literal[
    "model.timeout",
    "model.rate_limited",
    "model.unavailable",
    "model.content_filtered",
    "model.refused",
    "model.truncated",
    "model.invalid_output",
    "model.context_too_long",
    "model.unauthorised",
    "model.not_configured",
]


@dataclass(frozen=True, slots=True)
class ModelDeployment:
    """One deployment as callers see it. Prices in micro-USD per million tokens; ``open_weight`` marks fallbacks we host."""

    name: str
    model: str
    provider: str
    open_weight: bool = False
    context_tokens: int = 128_000
    max_output_tokens: int = 4_096
    input_micro_usd_per_mtok: int = 0
    output_micro_usd_per_mtok: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One attempt. With ``schema`` the reply is asked for as strict structured output of that JSON Schema.

    ``schema`` keeps to the provider's strict subset: every field required, ``additionalProperties`` false, few levels.
    """

    deployment: str
    messages: tuple[Message, ...]
    max_output_tokens: int
    timeout_s: float
    schema: JsonObject | None = None
    schema_name: str = "output"
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Tokens of one call as the provider counts them. ``estimated`` when it did not say."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What came back, whole. With a schema ``text`` is JSON text, still to be parsed strictly and validated."""

    text: str
    model: str
    finish_reason: str
    usage: ModelUsage
    latency_s: float


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """No usable reply. ``message`` is ours, never the provider's or the prompt's text. ``usage`` when tokens were spent.

    ``egress`` is the code with which the egress guard refused the deployment's address, or that of a redirect not followed."""

    code: FailureCode
    message: str
    retryable: bool = False
    retry_after_s: float | None = None
    usage: ModelUsage | None = None
    latency_s: float = 0.0
    egress: str = ""


@dataclass(frozen=True, slots=True)
class ModelDelta:
    """A piece of a streamed reply."""

    text: str


ModelResult: TypeAlias = ModelReply | ModelFailure


class ChatModels(Protocol):
    """Every deployment the platform has."""

    def deployment(self, name: str) -> ModelDeployment | None:
        """The deployment of that name, or None."""
        ...

    def for_tenant(self, tenant: TenantConfig, work: ModelWork) -> tuple[ModelDeployment, ...]:
        """The deployments to try, in order: the tenant's choice, else the platform's defaults, else none."""
        ...

    async def complete(self, call: ModelCall, *, traceparent: str | None = None) -> ModelResult:
        """One attempt. Never raises for what a model or its server does."""
        ...

    def stream(self, call: ModelCall, *, traceparent: str | None = None) -> AsyncIterator[ModelDelta | ModelResult]:
        """One attempt, in pieces; the last thing yielded is the whole ``ModelReply`` or a ``ModelFailure``."""
        ...


class NoChatModels:
    """A platform without any model: everything works in degraded mode."""

    def deployment(self, name: str) -> ModelDeployment | None:
        """None."""
        return None

    def for_tenant(self, tenant: TenantConfig, work: ModelWork) -> tuple[ModelDeployment, ...]:
        """None at all."""
        return ()

    async def complete(self, call: ModelCall, *, traceparent: str | None = None) -> ModelResult:
        """``model.not_configured``."""
        return ModelFailure("model.not_configured", "no model is configured")

    async def stream(
        self, call: ModelCall, *, traceparent: str | None = None
    ) -> AsyncIterator[ModelDelta | ModelResult]:
        """``model.not_configured``."""
        yield ModelFailure("model.not_configured", "no model is configured")
