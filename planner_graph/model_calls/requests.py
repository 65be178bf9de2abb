"""One request with its bookkeeping, and a result kept from before with its own. No decision about what comes next.

Every step is keyed by the question and the number of the request, so a second delivery finds what the first one did.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.run import PayloadRef
from engine.domain.telemetry_names import (
    AUDIT_REF,
    CACHED_INPUT_TOKENS,
    ERROR_TYPE,
    INPUT_TOKENS,
    METRIC_MODEL_DURATION,
    METRIC_TOKEN_USAGE,
    MODEL_DEPLOYMENT,
    MODEL_NODE,
    OPERATION,
    OUTPUT_TOKENS,
    PROVIDER_NAME,
    REQUEST_MAX_TOKENS,
    REQUEST_MODEL,
    REQUEST_SEED,
    RESPONSE_FINISH_REASON,
    RESPONSE_MODEL,
    RUN_ID,
    SPAN_CHAT,
    TOKEN_TYPE,
)
from engine.ports.audit_log import AuditLog
from engine.ports.budget import BudgetLedger
from engine.ports.clock import Clock
from engine.ports.model_results import ModelResultRecord, ModelResults
from engine.ports.models import ModelDeployment, ModelFailure, ModelReply, ModelUsage
from engine.ports.payload_store import PayloadStore
from engine.ports.telemetry import Attribute, Span, Telemetry
from planner_graph.model_calls.moves import FINAL, GatewayRules, failure_in
from planner_graph.model_calls.question import Question, cost_micro_usd
from planner_graph.model_calls.records import (
    completion_entry,
    egress_entry,
    entry_id,
    exhausted_entry,
    prompt_entry,
)
from planner_graph.model_calls.replies import clean_text, word
from planner_graph.model_calls.transports import Made, Transport

_LOG = logging.getLogger("livoa.models")
_MEDIA_TYPE = "text/plain; charset=utf-8"
_NOTHING_USED = ModelUsage(0, 0)
_WELL_KNOWN = {"azure_openai": "azure.ai.openai", "openai_compatible": "openai"}
"""What the GenAI conventions call our kinds of endpoints. Compatible servers count as what they are compatible with."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A result, made now or kept from before. ``made`` is the request of now, ``text`` what the model wrote."""

    record: ModelResultRecord
    text: str
    made: Made | None = None
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """No result may be used: a bound or the evidence stands against it. ``made``: the request was made nevertheless."""

    code: str
    made: Made | None = None


class Requests:
    """Makes requests, keeps their results, and finds them again."""

    def __init__(
        self,
        results: ModelResults,
        budgets: BudgetLedger,
        audit: AuditLog,
        payloads: PayloadStore,
        clock: Clock,
        telemetry: Telemetry,
        rules: GatewayRules,
    ) -> None:
        self._results, self._budgets, self._audit, self._payloads = results, budgets, audit, payloads
        self._clock, self._telemetry, self._rules = clock, telemetry, rules

    async def kept(self, question: Question, transport: Transport) -> Ended | Refused | None:
        """The result that an earlier delivery kept, with the bookkeeping that it may not have lived to do."""
        record = await self._results.get(question.key)
        return await self._reuse(question, record, transport) if record is not None else None

    async def keep_prompt(self, question: Question) -> PayloadRef:
        """The prompt as a payload of the run; its audit record has the hash."""
        site = question.site
        return await self._payloads.put(site.tenant.tenant_id, site.run_id, question.prompt)

    async def make(
        self,
        question: Question,
        deployment: ModelDeployment,
        prompt: PayloadRef,
        transport: Transport,
        *,
        timeout_s: float,
        is_first: bool,
    ) -> Ended | Refused:
        """One request, from its number to the audit of its completion. ``is_first`` of this delivery."""
        site = question.site
        number = await self._results.begin(question.key)
        if number > self._rules.max_requests:
            return Refused("model.requests_exhausted")
        if is_first and number > 1:
            # Requests of a delivery that died: they may have been made, so what was set aside for them is spent.
            await self._budgets.close(site.tenant.tenant_id, site.run_id, prefix=question.budget_prefix, as_spent=True)
        refusal = await self._reserve(question, deployment, number)
        if refusal is not None:
            return Refused(refusal)
        worst_micro_usd = cost_micro_usd(deployment, question.worst(deployment))
        entry = prompt_entry(
            question,
            number,
            self._clock.now(),
            deployment=deployment,
            prompt=prompt,
            reserved_micro_usd=worst_micro_usd,
        )
        if not await self._recorded(entry):
            await self._settle(question, number, 0, _NOTHING_USED)
            return Refused("audit.unavailable")
        made = await self._call(question, deployment, number, transport, timeout_s)
        return await self._conclude(question, deployment, number, made, transport)

    async def _reserve(self, question: Question, deployment: ModelDeployment, number: int) -> str | None:
        """Set the worst case aside; the code of the refusal when it is not covered."""
        site, worst = question.site, question.worst(deployment)
        if await self._budgets.reserve(
            site.tenant.tenant_id,
            site.run_id,
            f"{question.budget_prefix}{number}",
            amount_micro_usd=cost_micro_usd(deployment, worst),
            tokens=worst.input_tokens + worst.output_tokens,
            share=site.share,
        ):
            return None
        state = await self._budgets.state(site.tenant.tenant_id, site.run_id)
        code = "budget.exhausted" if state is not None else "budget.not_open"
        await self._recorded(
            exhausted_entry(question, number, self._clock.now(), deployment=deployment.name, code=code)
        )
        return code

    async def _settle(self, question: Question, number: int, spent_micro_usd: int, usage: ModelUsage) -> None:
        site = question.site
        await self._budgets.settle(
            site.tenant.tenant_id,
            site.run_id,
            f"{question.budget_prefix}{number}",
            spent_micro_usd=spent_micro_usd,
            spent_tokens=usage.input_tokens + usage.output_tokens,
        )

    async def _recorded(self, entry: AuditEntry) -> bool:
        try:
            await self._audit.append(entry)
        except Exception as err:
            # Whatever keeps a record from being written keeps the request from being made, or its reply from being used.
            _LOG.error("audit of a model call failed: %s", type(err).__name__, extra={"run_id": entry.run_id})
            return False
        return True

    async def _call(
        self, question: Question, deployment: ModelDeployment, number: int, transport: Transport, timeout_s: float
    ) -> Made:
        attributes: dict[str, Attribute] = {
            OPERATION: SPAN_CHAT,
            PROVIDER_NAME: _WELL_KNOWN.get(deployment.provider, deployment.provider),
            REQUEST_MODEL: deployment.model,
            REQUEST_MAX_TOKENS: question.output_tokens(deployment),
            REQUEST_SEED: question.seed,
            MODEL_DEPLOYMENT: deployment.name,
            MODEL_NODE: question.site.node,
            RUN_ID: question.site.run_id,
            AUDIT_REF: entry_id(question, number, AuditType.PLANNER_COMPLETION),
        }
        call = question.call(deployment, timeout_s)
        with self._telemetry.span(
            f"{SPAN_CHAT} {deployment.model}",
            kind="client",
            traceparent=question.site.traceparent,
            attributes=attributes,
        ) as span:
            made = await transport.make(call, span.traceparent)
            if isinstance(made.result, ModelReply) and (failure := failure_in(made.result)) is not None:
                made = Made(failure, made.text, made.stopped)
            self._observe(span, deployment, made)
        return made

    def _observe(self, span: Span, deployment: ModelDeployment, made: Made) -> None:
        """Figures for the span and the metrics. Names and counts, no content."""
        labels: dict[str, Attribute] = {
            OPERATION: SPAN_CHAT,
            PROVIDER_NAME: _WELL_KNOWN.get(deployment.provider, deployment.provider),
            REQUEST_MODEL: deployment.model,
        }
        if isinstance(made.result, ModelReply):
            span.set(RESPONSE_MODEL, word(made.result.model))
            span.set(RESPONSE_FINISH_REASON, word(made.result.finish_reason))
        if made.result.usage is not None:
            usage = made.result.usage
            span.set(INPUT_TOKENS, usage.input_tokens)
            span.set(OUTPUT_TOKENS, usage.output_tokens)
            span.set(CACHED_INPUT_TOKENS, usage.cached_input_tokens)
            for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                self._telemetry.record(METRIC_TOKEN_USAGE, tokens, labels | {TOKEN_TYPE: kind})
        if made.code is not None:
            span.fail(made.code)
            labels[ERROR_TYPE] = made.code
        self._telemetry.record(METRIC_MODEL_DURATION, made.result.latency_s, labels)

    async def _conclude(
        self, question: Question, deployment: ModelDeployment, number: int, made: Made, transport: Transport
    ) -> Ended | Refused:
        """Keep first, because what is kept is never paid twice; then settle and record, which a later delivery can do too."""
        text = clean_text(made.text)
        if isinstance(made.result, ModelFailure) and made.result.egress:
            refused = egress_entry(
                question, number, self._clock.now(), deployment=deployment.name, code=made.result.egress
            )
            await self._recorded(refused)  # the completion, without which nothing is used, has the failure as well
        record = await self._record(question, deployment, number, made, text)
        is_final = record.code is None or (record.code in FINAL and not _retryable(made))
        kept = await self._results.put(question.key, record) if is_final else record
        if not await self._closed(question, record):
            return Refused("audit.unavailable", made)
        if kept != record:
            # Another delivery was first; its result stands, so that both go on alike.
            return await self._reuse(question, kept, transport, made)
        return Ended(record, text, made)

    async def _closed(self, question: Question, record: ModelResultRecord) -> bool:
        """Settle the request and record its completion, together: neither needs the other, and one commit serves both."""
        entry = completion_entry(question, self._clock.now(), record)
        settled = self._settle(question, record.request, record.cost_micro_usd, record.usage)
        _, recorded = await asyncio.gather(settled, self._recorded(entry))
        return recorded

    async def _record(
        self, question: Question, deployment: ModelDeployment, number: int, made: Made, text: str
    ) -> ModelResultRecord:
        result, site = made.result, question.site
        usage = _usage(question, deployment, result)
        output = None
        if text:
            output = await self._payloads.put(site.tenant.tenant_id, site.run_id, text.encode(), _MEDIA_TYPE)
        return ModelResultRecord(
            request=number,
            deployment=deployment.name,
            model=word(result.model) if isinstance(result, ModelReply) else deployment.model,
            finish_reason=word(result.finish_reason) if isinstance(result, ModelReply) else "",
            usage=usage,
            cost_micro_usd=cost_micro_usd(deployment, usage),
            latency_s=result.latency_s,
            output=output,
            code=made.code,
        )

    async def _reuse(
        self, question: Question, record: ModelResultRecord, transport: Transport, made: Made | None = None
    ) -> Ended | Refused:
        site, text = question.site, ""
        if record.output is not None:
            data = await self._payloads.get(site.tenant.tenant_id, site.run_id, record.output)
            text = data.decode()
        if not await self._closed(question, record):
            return Refused("audit.unavailable", made)
        if record.code is None:
            await transport.replay(text)
        return Ended(record, text, made, reused=True)


def _retryable(made: Made) -> bool:
    return made.stopped is None and isinstance(made.result, ModelFailure) and made.result.retryable


def _usage(question: Question, deployment: ModelDeployment, result: ModelReply | ModelFailure) -> ModelUsage:
    """What was used. Where the provider does not say, an estimate from above of what it bills."""
    if result.usage is not None:
        return result.usage
    match result.code if isinstance(result, ModelFailure) else None:
        case "model.invalid_output":  # a reply came; that we cannot read it makes it no cheaper
            return question.worst(deployment)
        case "model.timeout" | "model.content_filtered" | "model.context_too_long":
            # Azure OpenAI bills the prompt of a request that it worked on and answered with an error.
            return ModelUsage(question.input_tokens, 0, estimated=True)
        case _:
            return _NOTHING_USED
