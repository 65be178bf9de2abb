"""Chat models in memory that do what a test says, for tests of what stands around a model call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

from engine.domain.tenant import TenantConfig
from engine.ports.models import (
    ModelCall,
    ModelDelta,
    ModelDeployment,
    ModelFailure,
    ModelReply,
    ModelResult,
    ModelUsage,
    ModelWork,
)

Step: TypeAlias = ModelResult | Exception | Sequence["ModelDelta | ModelResult | Exception"]
"""One request: its result, what the port raises, or the pieces of a stream."""

GPT = ModelDeployment(
    "gpt-4o", "gpt-4o", "azure.ai.openai", input_micro_usd_per_mtok=2_500_000, output_micro_usd_per_mtok=10_000_000
)
LLAMA = ModelDeployment("llama", "llama-3.1-8b", "vllm", open_weight=True)


def reply(text: str = '{"n": 1}', *, usage: ModelUsage = ModelUsage(100, 20), **fields: object) -> ModelReply:  # noqa: B008 - frozen
    """A whole reply."""
    values = {"model": "gpt-4o-2024-11-20", "finish_reason": "stop", "latency_s": 0.5} | fields
    return ModelReply(text=text, usage=usage, **values)  # type: ignore[arg-type]  # tests name fields they know


def unavailable() -> ModelFailure:
    """A 500."""
    return ModelFailure("model.unavailable", "no", retryable=True)


class ScriptedModels:
    """Deployments in order, and what each request to them gets. Asking further than the script is an error of the test."""

    def __init__(self, *deployments: ModelDeployment) -> None:
        self.deployments = deployments or (GPT,)
        self.steps: dict[str, list[Step]] = {}
        self.calls: list[ModelCall] = []
        self.closed = 0

    def script(self, deployment: str, *steps: Step) -> None:
        """What the next requests to ``deployment`` get."""
        self.steps.setdefault(deployment, []).extend(steps)

    def deployment(self, name: str) -> ModelDeployment | None:
        """See the port."""
        return next((one for one in self.deployments if one.name == name), None)

    def for_tenant(self, tenant: TenantConfig, work: ModelWork) -> tuple[ModelDeployment, ...]:
        """See the port."""
        return self.deployments

    def _next(self, call: ModelCall) -> Step:
        self.calls.append(call)
        return self.steps[call.deployment].pop(0)

    async def complete(self, call: ModelCall, *, traceparent: str | None = None) -> ModelResult:
        """See the port."""
        step = self._next(call)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, ModelReply | ModelFailure)
        return step

    async def stream(
        self, call: ModelCall, *, traceparent: str | None = None
    ) -> AsyncIterator[ModelDelta | ModelResult]:
        """See the port."""
        step = self._next(call)
        pieces = step if isinstance(step, Sequence) else [step]
        try:
            for piece in pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.closed += 1


def streamed(text: str, *, size: int = 4) -> list[ModelDelta | ModelResult]:
    """The pieces of a reply."""
    pieces: list[ModelDelta | ModelResult] = [ModelDelta(text[i : i + size]) for i in range(0, len(text), size)]
    return [*pieces, reply(text)]
