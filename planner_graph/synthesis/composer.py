"""The composer: a model writes the summary as a stream, held to the outputs piece by piece; without a model rules write it.

KPIs and tables are never the model's: they are copied from outputs. What a model adds is the text, of which every figure is
checked, every source named and every foreign link taken out before anybody sees it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from engine.domain.answer import Answer
from engine.domain.tenant import TenantConfig
from engine.ports.clock import Clock
from engine.ports.models import ChatModels, Message, ModelWork
from engine.ports.planner import AnswerSink, ComposeRequest, StepResult
from planner_graph.degraded import DegradedComposer
from planner_graph.model_calls import Answered, Asked, CallSite, OnDelta, OnRestart, PromptFile, Unanswered
from planner_graph.prompts import load_prompt, prompt_file
from planner_graph.seen.spotlight import MARK, spotlight
from planner_graph.synthesis.checking import Checker, Findings
from planner_graph.synthesis.digest import digest
from planner_graph.synthesis.figures import Evidence
from planner_graph.synthesis.sentences import Sentences
from policy.links import clean_links

NODE = "answer"
MAX_OUTPUT_TOKENS = 2_000
MAX_ANSWER_CHARS = 20_000
_MAX_RESULTS_CHARS = 80_000
_MAX_RESULT_CHARS = 24_000
_COMPOSING_TIME = timedelta(seconds=120)


class StreamsReplies(Protocol):
    """What the composer needs of the model gateway."""

    async def stream(
        self,
        site: CallSite,
        work: ModelWork,
        messages: Sequence[Message],
        max_output_tokens: int,
        *,
        on_delta: OnDelta,
        on_restart: OnRestart,
        prompt_file: PromptFile | None,
    ) -> Asked:
        """Ask, and hand the pieces of the reply on as they come."""
        ...


class ModelComposer:
    """Implements the ``AnswerComposer`` port with the tenant's synthesiser, and with rules where there is none."""

    def __init__(self, gateway: StreamsReplies, models: ChatModels, clock: Clock) -> None:
        self._gateway = gateway
        self._models = models
        self._clock = clock

    async def compose(self, request: ComposeRequest, sink: AnswerSink) -> Answer:
        """Compose by the model; by rule when none is configured, when nothing has succeeded, or when it gives no answer."""
        tenant = request.tenant
        if tenant is None or not self._models.for_tenant(tenant, "synthesiser"):
            return await DegradedComposer().compose(request, sink)
        if not any(step.status == "succeeded" and step.output is not None for step in request.steps):
            return await DegradedComposer(reason="no step has produced anything to write about").compose(request, sink)
        writing = Writing(await asyncio.to_thread(_checker, request, tenant), sink)
        asked = await self._ask(request, tenant, writing)
        if isinstance(asked, Unanswered) or not await writing.finish():
            code = asked.code if isinstance(asked, Unanswered) else "model.invalid_output"
            if writing.begun:
                await sink.restart(code)
            return await DegradedComposer(reason=f"the model gave no answer ({code})").compose(request, sink)
        return await _answer(request, writing, asked)

    async def _ask(self, request: ComposeRequest, tenant: TenantConfig, writing: Writing) -> Asked:
        messages = await asyncio.to_thread(_messages, request)
        return await self._gateway.stream(
            CallSite(
                tenant=tenant,
                run_id=request.run_id,
                actor=request.actor,
                plan_version=request.plan_version,
                node=NODE,
                deadline_at=request.deadline_at or self._clock.now() + _COMPOSING_TIME,
                traceparent=request.traceparent,
            ),
            work="synthesiser",
            messages=messages,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            prompt_file=prompt_file("synthesise", "results"),
            on_delta=writing.take,
            on_restart=writing.restart,
        )


class Writing:
    """The model's text on its way to the reader: cut into sentences, checked, handed on, remembered."""

    def __init__(self, checker: Checker, sink: AnswerSink) -> None:
        self._checker = checker
        self._sink = sink
        self._sentences = Sentences()
        self._shown: list[str] = []
        self._chars = 0

    @property
    def begun(self) -> bool:
        """True when a reader has seen something."""
        return bool(self._shown)

    @property
    def text(self) -> str:
        """What readers have seen."""
        return "".join(self._shown)

    @property
    def findings(self) -> Findings:
        """What the checks found."""
        return self._checker.findings

    async def take(self, text: str) -> None:
        """Take a piece as it comes from the model."""
        for piece in self._sentences.feed(text):
            # A run without any blank is cut somewhere: put together again, its parts must not make up an address.
            await self._show(piece if piece[-1].isspace() else f"{piece} ")

    async def restart(self, reason: str) -> None:
        """The text begins anew."""
        begun = self.begun
        self._sentences, self._shown, self._chars = Sentences(), [], 0
        self._checker.findings = Findings()
        if begun:
            await self._sink.restart(reason)

    async def finish(self) -> bool:
        """Show the rest; False when there is no text at all."""
        await self._show(self._sentences.rest())
        return bool(self.text.strip())

    async def _show(self, piece: str) -> None:
        checked = self._checker.check(piece)[: max(0, MAX_ANSWER_CHARS - self._chars)]
        if checked and (self._shown or checked.strip()):
            self._shown.append(checked)
            self._chars += len(checked)
            await self._sink.write(checked)


class _Nowhere:
    """A sink for text that nobody wants."""

    async def write(self, text: str) -> None:
        """Drop it."""

    async def restart(self, reason: str) -> None:
        """Nothing was kept."""


async def _answer(request: ComposeRequest, writing: Writing, asked: Answered) -> Answer:
    """The model's text beside the figures and tables that rules copy from the outputs."""
    by_rule = await DegradedComposer().compose(request, _Nowhere())
    found = writing.findings
    return by_rule.model_copy(
        update={
            "summary": writing.text.strip(),
            "insights": (),
            "degraded_reason": None,
            "model": asked.reply.model,
            "cited": tuple(sorted(found.cited)),
            "unsupported_figures": tuple(found.unsupported),
            "removed_links": by_rule.removed_links + found.removed_links,
        }
    )


def _checker(request: ComposeRequest, tenant: TenantConfig) -> Checker:
    outputs = [(step.step_id, step.output) for step in request.steps if step.status == "succeeded"]
    question = " ".join((request.request.intent, *request.request.goals))
    step_ids = {step.step_id for step in request.steps}
    return Checker(Evidence(outputs, question), step_ids, tenant.answer.link_hosts, clean_links)


def _messages(request: ComposeRequest) -> tuple[Message, ...]:
    done = [step for step in request.steps if step.status == "succeeded" and step.output is not None]
    each = min(_MAX_RESULT_CHARS, _MAX_RESULTS_CHARS // max(1, len(done)))
    missing = [f"- {step.step_id}: {step.status}{_code(step)}" for step in request.steps if step not in done]
    instructions = f"- For this answer: {' '.join(request.instructions.split())}" if request.instructions else ""
    words = {"intent": request.request.intent, "goals": list(request.request.goals)}
    results = load_prompt("results").render(
        request=json.dumps(words, ensure_ascii=False),
        results="\n\n".join(spotlight(step.step_id, digest(step.output, each), each) for step in done),
        missing="\n".join(missing) or "(none)",
    )
    rules = load_prompt("synthesise").render(instructions=instructions, mark=MARK)
    return (Message("system", rules), Message("user", results))


def _code(step: StepResult) -> str:
    return f" ({step.error.code})" if step.error is not None else ""
