"""Self-critique: the model reviews a draft before the checks do. Findings are typed, bounded, and lead to one revision."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from engine.domain.base import JsonObject
from engine.ports.models import Message
from planner_graph.lowering import strict_schema
from planner_graph.model_calls import Answered
from planner_graph.nodes.asking import Question, ask
from planner_graph.nodes.drafting import shown
from planner_graph.prompts import load_prompt, prompt_file
from planner_graph.seen.capabilities import cards
from planner_graph.seen.request import request_text
from planner_graph.serialisation import needless_edges
from planner_graph.state import Finding, FindingKind, Session, State

_MAX_OUTPUT_TOKENS = 1_500
_MAX_FINDINGS = 10
_MAX_MESSAGE_CHARS = 400
MANY_STEPS = 12
"""A plan with more steps than this is worth a second look."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Reported(_Closed):
    kind: FindingKind
    step_id: str | None
    message: str


class _Critique(_Closed):
    findings: Annotated[tuple[_Reported, ...], Strict(False), Field(max_length=1_000)]


def is_due(state: State, session: Session) -> bool:
    """Whether this tenant's rules ask for a review: ``on_risk`` means effects outside, many steps, or needless waiting."""
    draft = state.get("draft")
    rule = session.task.tenant.planner.self_critique
    if rule == "never" or draft is None or draft.lowered is None:
        return False
    return rule == "always" or is_risky(draft.lowered.document, session)


def is_risky(document: JsonObject, session: Session) -> bool:
    """Effects outside, many steps, or a step that waits for nothing it uses."""
    capabilities = session.catalog.capabilities
    used = [capabilities.get(step.get("capability", "")) for step in document["steps"]]
    if any(found is not None and found.side_effect in ("write", "external") for found in used):
        return True
    return len(used) > MANY_STEPS or bool(needless_edges(document, capabilities))


async def self_critique(state: State, session: Session) -> State:
    """What counting finds for certain, and what the model finds. A model that does not answer finds nothing."""
    draft = state["draft"]
    assert draft.lowered is not None, "only a draft that can be read is reviewed"
    certain = needless_edges(draft.lowered.document, session.catalog.capabilities)
    asked = await ask(session, _question(state, session))
    reported = _findings(asked.value) if isinstance(asked, Answered) else ()
    return {"findings": (*certain, *reported)[:_MAX_FINDINGS]}


def _question(state: State, session: Session) -> Question:
    system = load_prompt("critique").render(
        capabilities=cards(shown(state, session), session.circuits(session.task.tenant))
    )
    user = f"{request_text(session.task.request, session.task.tenant)}\n\nThe proposal:\n{state['draft'].text}"
    return Question(
        node="self_critique",
        work="planner",
        messages=(Message("system", system), Message("user", user)),
        schema=strict_schema(_Critique),
        schema_name="livoa_critique",
        max_output_tokens=_MAX_OUTPUT_TOKENS,
        prompt=prompt_file("critique", "request"),
    )


def _findings(value: Any) -> tuple[Finding, ...]:
    try:
        reported = _Critique.model_validate(value).findings[:_MAX_FINDINGS]
    except ValidationError:
        return ()
    return tuple(
        Finding(kind=one.kind, step_id=one.step_id, message=one.message[:_MAX_MESSAGE_CHARS]) for one in reported
    )
