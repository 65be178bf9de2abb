"""The one door for model calls: breaker, reuse, budget, write-ahead audit, the request, its settlement, retries, fallbacks.

The order of one request: permit of the breaker → number of the request → reservation → audit of the prompt → the request →
the result kept → settlement → audit of the completion. Whatever keeps the prompt's record from being written keeps the request
from being made; whatever keeps the completion's from being written keeps the reply from being used. A process that dies in
between leaves an open reservation, which counts as spent; a result that was kept is used again and never asked for twice.

What to ask and what to do with an answer is the caller's. Nothing here reads content, except to parse it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError, Violation
from engine.domain.run import PayloadRef
from engine.limits.breaker import CallOutcome
from engine.ports.audit_log import AuditLog
from engine.ports.budget import BudgetLedger
from engine.ports.clock import Clock
from engine.ports.model_results import ModelResults
from engine.ports.models import ChatModels, Message, ModelDeployment, ModelFailure, ModelWork
from engine.ports.payload_store import PayloadStore
from engine.ports.telemetry import Telemetry
from planner_graph.model_calls.answers import (
    IGNORE,
    Answered,
    Asked,
    CallSite,
    Hop,
    OnDelta,
    OnRestart,
    PromptFile,
    ReplyFacts,
    Unanswered,
)
from planner_graph.model_calls.breakers import Breakers
from planner_graph.model_calls.moves import REPAIRABLE, GatewayRules, move_after, outcome_of
from planner_graph.model_calls.question import Question, question_of
from planner_graph.model_calls.replies import read_reply
from planner_graph.model_calls.requests import Ended, Refused, Requests
from planner_graph.model_calls.transports import ConsumerError, Streamed, Transport, Whole

Sleep = Callable[[float], Awaitable[None]]


class ModelGateway:
    """Asks models. One per process: it holds the breakers of the deployments."""

    def __init__(
        self,
        models: ChatModels,
        results: ModelResults,
        budgets: BudgetLedger,
        audit: AuditLog,
        payloads: PayloadStore,
        clock: Clock,
        telemetry: Telemetry,
        *,
        rules: GatewayRules = GatewayRules(),  # noqa: B008 - frozen
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._models, self._clock, self._rules, self._sleep = models, clock, rules, sleep
        self._leases = 0
        self._breakers = Breakers(clock, telemetry, rules.breaker)
        self._requests = Requests(results, budgets, audit, payloads, clock, telemetry, rules)

    async def ask(
        self,
        site: CallSite,
        work: ModelWork,
        messages: Sequence[Message],
        schema: JsonObject | None,
        schema_name: str,
        max_output_tokens: int,
        *,
        prompt_file: PromptFile | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Asked:
        """Ask for one reply, whole. With ``schema`` it is asked for as structured output, parsed strictly and checked.

        Never raises for what models, their servers, budgets or stores do: that is an ``Unanswered`` with its code.
        ``ValueError`` when the node is no wire id or ``max_output_tokens`` is below 1.
        """
        if work == "router":
            ends_at = self._clock.now() + timedelta(seconds=self._rules.router_time_s)
            site = replace(site, deadline_at=min(site.deadline_at, ends_at))
        question = question_of(
            site,
            work,
            tuple(messages),
            schema=schema,
            schema_name=schema_name,
            max_output_tokens=max_output_tokens,
            temperature=temperature,
            seed=seed,
            prompt_file=prompt_file,
        )
        return await self._ask(question, Whole(self._models))

    async def stream(
        self,
        site: CallSite,
        work: ModelWork,
        messages: Sequence[Message],
        max_output_tokens: int,
        *,
        on_delta: OnDelta,
        on_restart: OnRestart = IGNORE,
        prompt_file: PromptFile | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Asked:
        """Ask for text and hand on its pieces as they come; the result has the whole text.

        ``on_restart`` is told when what was handed on is void and the text begins anew, from a retry or another deployment.
        After an ``Unanswered`` what was handed on is no answer either (``text_for_repair`` has it). A result kept from before
        comes as one piece. Errors as ``ask``; what ``on_delta`` or ``on_restart`` raise goes through.
        """
        question = question_of(
            site,
            work,
            tuple(messages),
            schema=None,
            schema_name="text",
            max_output_tokens=max_output_tokens,
            temperature=temperature,
            seed=seed,
            prompt_file=prompt_file,
        )
        transport = Streamed(self._models, question, self._clock, self._rules, on_delta, on_restart)
        try:
            return await self._ask(question, transport)
        except ConsumerError as err:
            raise err.cause from None

    async def _ask(self, question: Question, transport: Transport) -> Asked:
        hops: list[Hop] = []
        try:
            end = await self._end(question, transport, hops)
        except LivoaError as err:
            # A store that fails ends the question; what happened so far is found again under the same keys.
            end = Refused(err.code)
        if isinstance(end, Refused):
            return Unanswered(end.code, tuple(hops))
        # In a thread: reading a long reply strictly takes seconds, and others share the loop.
        return await asyncio.to_thread(answer_of, question, end, tuple(hops), self._rules)

    async def _end(self, question: Question, transport: Transport, hops: list[Hop]) -> Ended | Refused:
        """The kept result, or the first usable one of the deployments; ``hops`` are those that were passed over."""
        deployments = self._models.for_tenant(question.site.tenant, question.work)
        if not deployments:
            return Refused("model.not_configured")
        kept = await self._requests.kept(question, transport)
        if kept is not None:
            return kept
        prompt = await self._requests.keep_prompt(question)
        turn = _Turn(question, prompt, transport)
        for deployment in deployments:
            turn.is_last = deployment is deployments[-1]
            end = await self._try(turn, deployment)
            if not isinstance(end, Hop):
                return end
            hops.append(end)
        return Refused(hops[-1].reason)

    async def _try(self, turn: _Turn, deployment: ModelDeployment) -> Ended | Refused | Hop:
        """One deployment, with its retries."""
        attempt = 1
        while True:
            left_s = self._left_s(turn.question)
            if left_s < self._rules.min_call_s:
                return Refused("model.deadline")
            end = await self._permitted(turn, deployment, self._rules.timeout_s(left_s, is_last=turn.is_last))
            if not isinstance(end, Ended) or end.record.code is None or end.reused or end.made is None:
                return end
            if end.made.stopped is not None or not isinstance(end.made.result, ModelFailure):
                return end
            move = move_after(
                end.made.result,
                attempt,
                key=f"{turn.question.site.run_id}/{turn.question.budget_prefix}{deployment.name}",
                left_s=self._left_s(turn.question),
                is_last=turn.is_last,
                rules=self._rules,
            )
            if move == "stop":
                return end
            if move == "next":
                return Hop(deployment.name, end.record.code)
            await self._sleep(move)
            attempt += 1

    async def _permitted(self, turn: _Turn, deployment: ModelDeployment, timeout_s: float) -> Ended | Refused | Hop:
        """One request, if the breaker permits it, and the breaker's share of what came of it."""
        self._leases += 1
        lease_id = f"{self._leases}"
        permit = self._breakers.permit(deployment.name, lease_id)
        if not permit.granted:
            return Hop(deployment.name, "model.breaker_open")
        outcome: CallOutcome = "neutral"
        try:
            end = await self._requests.make(
                turn.question,
                deployment,
                turn.prompt,
                turn.transport,
                timeout_s=timeout_s,
                is_first=turn.requests == 0,
            )
            turn.requests += 1
            if end.made is not None and end.made.stopped is None:
                outcome = outcome_of(end.made.result, timeout_s, self._rules)
        finally:
            self._breakers.report(deployment.name, lease_id, permit.generation, outcome)
        if isinstance(end, Refused) and end.code == "budget.exhausted":
            # The next deployment may cost less, or nothing.
            return Hop(deployment.name, end.code)
        return end

    def _left_s(self, question: Question) -> float:
        return (question.site.deadline_at - self._clock.now()).total_seconds()


@dataclass(slots=True)
class _Turn:
    """A question on its way through the deployments."""

    question: Question
    prompt: PayloadRef
    transport: Transport
    is_last: bool = False
    requests: int = 0


def answer_of(question: Question, end: Ended, hops: tuple[Hop, ...], rules: GatewayRules) -> Asked:
    """What the caller is told about a result."""
    facts = _facts(question, end)
    code = end.record.code
    violations: tuple[Violation, ...] = ()
    if code is None and question.schema is None:
        return Answered(end.text, end.text, facts, hops)
    if code is None and question.schema is not None:
        value, violations = read_reply(end.text, question.schema)
        if not violations:
            return Answered(value, end.text, facts, hops)
    return Unanswered(
        code or "model.invalid_output",
        hops,
        repairable=code is None or code in REPAIRABLE,
        text_for_repair=end.text[: rules.max_repair_chars],
        violations=violations,
        reply=facts,
    )


def _facts(question: Question, end: Ended) -> ReplyFacts:
    record = end.record
    return ReplyFacts(
        deployment=record.deployment,
        model=record.model,
        finish_reason=record.finish_reason,
        usage=record.usage,
        cost_micro_usd=record.cost_micro_usd,
        latency_s=record.latency_s,
        seed=question.seed,
        prompt_sha256=question.prompt_sha256,
        output_sha256=record.output.sha256 if record.output is not None else "",
        requests=record.request,
        reused=end.reused,
    )
