"""What ``plan`` and ``repair`` share: the prompt of a proposal, and reading what came back as a draft."""

from __future__ import annotations

import asyncio

from engine.domain.capability import Capability
from engine.domain.errors import Violation
from engine.ports.models import Message
from engine.ports.planner import NoPlan
from planner_graph.lowering import SCHEMA_NAME, Lowered, Rejected, lower, proposal_schema
from planner_graph.lowering.lower import Declined
from planner_graph.model_calls import Answered, Asked, PromptFile, Unanswered
from planner_graph.nodes.asking import Question, ask
from planner_graph.nodes.classify import SURE, out_of_scope
from planner_graph.prompts import load_prompt
from planner_graph.seen.capabilities import cards, enabled
from planner_graph.seen.request import bounds_text, request_text
from planner_graph.state import Draft, Session, State
from planner_graph.suffix import join, suffix_text

_MAX_OUTPUT_TOKENS = 8_000
_MAX_ROUTED = 25


def opening(state: State, session: Session) -> tuple[Message, ...]:
    """The prompt of a first proposal: how plans work, what may be called, and the request."""
    task = session.task
    system = load_prompt("plan").render(
        capabilities=cards(shown(state, session), session.circuits(task.tenant)),
        **bounds_text(task.request, task.tenant, session.clock.now().date()),
    )
    user = request_text(task.request, task.tenant)
    if task.repair is not None:
        user = f"{user}\n\n{suffix_text(task.repair)}"
    return (Message("system", system), Message("user", user))


def shown(state: State, session: Session) -> tuple[Capability, ...]:
    """The routed capabilities; all that are enabled when the route is unsure: a wrong subset is worse than a long prompt.

    Words alone find what a request is mostly about, not all that it takes, so without a router model only a large catalog is
    narrowed.
    """
    every = enabled(session.catalog, session.task.tenant)
    route = state.get("route")
    if route is None or not route.in_scope or route.confidence < SURE:
        return every
    if len(every) <= _MAX_ROUTED and session.models.deployment(route.router) is None:
        return every
    names = [ranked.name for ranked in route.capabilities[:_MAX_ROUTED]]
    routed = {capability.name: capability for capability in every}
    return tuple(routed[name] for name in names if name in routed) or every


async def draft(session: Session, node: str, messages: tuple[Message, ...], prompt: PromptFile) -> State:
    """Ask for a proposal and read it."""
    question = Question(
        node=node,
        work="planner",
        messages=messages,
        schema=proposal_schema(),
        schema_name=SCHEMA_NAME,
        max_output_tokens=_MAX_OUTPUT_TOKENS,
        prompt=prompt,
    )
    asked = await ask(session, question)
    return await asyncio.to_thread(read, asked, session)  # see ModelGateway: a long proposal takes long


def read(asked: Asked, session: Session) -> State:
    """The draft in an answer. Text that cannot be read is a draft with faults; no text at all is trouble."""
    match asked:
        case Unanswered(repairable=True):
            model = asked.reply.deployment if asked.reply is not None else ""
            faults = asked.violations or (Violation(code=asked.code, pointer="", message="this is not a proposal"),)
            return {"draft": Draft(_text(asked.text_for_repair), None, model), "faults": faults, "findings": ()}
        case Unanswered():
            return {"trouble": asked.code}
        case Answered():
            return _read_value(asked, session)


def _read_value(asked: Answered, session: Session) -> State:
    lowered = lower(asked.value)
    if isinstance(lowered, Declined):
        return {"outcome": _declined(lowered, session)}
    repair = session.task.repair
    if isinstance(lowered, Lowered) and repair is not None:
        lowered = join(lowered, repair)
    model = asked.reply.deployment
    if isinstance(lowered, Rejected):
        return {"draft": Draft(_text(asked.text), None, model), "faults": lowered.violations, "findings": ()}
    return {"draft": Draft(_text(asked.text), lowered, model), "faults": (), "findings": ()}


def _text(text: str) -> str:
    """What the model wrote, as text that can be sent: a lone surrogate cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _declined(declined: Declined, session: Session) -> NoPlan:
    if declined.why == "out_of_scope":
        return out_of_scope(session, None)
    return NoPlan(
        code="plan.missing_values",
        message="the request leaves something open that a plan needs; say it in the intent or in context.values",
    )
