"""How nodes ask a model: one question through the gateway, which has budgets, audit, retries and fallbacks behind it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.base import JsonObject
from engine.domain.tenant import TenantConfig
from engine.ports.budget import REPAIR_KEYS, Share
from engine.ports.models import Message, ModelWork
from planner_graph.model_calls import Asked, CallSite, PromptFile
from planner_graph.state import Session


@dataclass(frozen=True, slots=True)
class Question:
    """One question: where it is asked, to which kind of model, and the schema of the answer."""

    node: str
    work: ModelWork
    messages: tuple[Message, ...]
    schema: JsonObject
    schema_name: str
    max_output_tokens: int
    prompt: PromptFile


async def ask(session: Session, question: Question, *, tenant: TenantConfig | None = None) -> Asked:
    """The answer, or why there is none. ``tenant``: the same tenant with other deployments to ask."""
    task = session.task
    site = CallSite(
        tenant=tenant or task.tenant,
        run_id=task.run_id,
        actor=task.actor,
        plan_version=task.plan_version,
        node=question.node,
        deadline_at=task.deadline_at,
        traceparent=task.traceparent,
        share=Share(REPAIR_KEYS, task.tenant.planner.max_repair_cost_micro_usd) if task.repair is not None else None,
    )
    return await session.gateway.ask(
        site,
        question.work,
        question.messages,
        question.schema,
        question.schema_name,
        question.max_output_tokens,
        prompt_file=question.prompt,
    )
