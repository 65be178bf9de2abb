"""The labels that things start with: the run's own values, and what the author of a plan writes into it.

A value of the request: the intent and the goals are the user's own words (3); ``context.values`` are typed facts (2);
``context.documents`` are text by anybody (0). Values and documents belong to the tenant (confidentiality 1).

A plan's author decides two things. *That* a step stands in the plan, with its condition, count and pause: ``existence``. And the
literals: a caller's own plan is the signed-in user's own words (3), a playbook is the platform's or the tenant's configuration
(2), a model is at most 2 in what it lets happen and at most 1 in the values it makes up, and never above what it read. A plan
nobody accounts for is worth 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import assert_never

from engine.domain.base import JsonValue
from engine.domain.run import PlanProvenance, RunRequest
from engine.domain.tenant import TenantConfig
from policy.flow.grounding import Grounding
from policy.flow.leaves import pointer_to
from policy.flow.shapes import Shape
from policy.flow.traces import LOWEST, NEUTRAL, Link, Trace

OWN_DATA = 1
"""Confidentiality of what the tenant's own people put into a request."""

_VALUES = ("context", "values")
_DOCUMENTS = ("context", "documents")


@lru_cache(maxsize=4_096)
def run_value(tokens: tuple[str, ...]) -> Trace:
    """The label of a part of ``run#``; a mixture, or what a run does not offer, is as bad as can be."""
    return _run_label(tokens).at(f"run#{pointer_to(tokens)}")


def _run_label(tokens: tuple[str, ...]) -> Trace:
    if tokens[:1] in (("intent",), ("goals",)):
        return NEUTRAL
    if tokens[:2] == _VALUES:
        return Trace(2, OWN_DATA)
    if tokens[:2] == _DOCUMENTS:
        return Trace(0, OWN_DATA)
    return LOWEST


class Author:
    """Who wrote a plan, as far as labels go. ``existence`` is the label of every step's being there at all."""

    def __init__(self, provenance: PlanProvenance | None, request: RunRequest | None, tenant: TenantConfig) -> None:
        seen = provenance.seen_integrity if provenance is not None else 0
        source = provenance.source if provenance is not None else None
        match source:
            case "caller":
                existence, literal = seen, seen
            case "playbook":
                existence, literal = min(2, seen), min(2, seen)
            case "model":
                existence, literal = min(2, seen), min(1, seen)
            case None:
                existence, literal = 0, 0
            case _:
                assert_never(source)
        words = _WORDS[source].format(seen=seen)
        # A model that read the tenant's data can repeat it in what it writes.
        known = OWN_DATA if source in ("model", None) and seen < 3 else 0
        self.existence = NEUTRAL if existence == 3 else Trace(existence, 0, False, Link(words))
        self._literal = _literal(literal, known, f"literal of {words}")
        self._manifest_word = _literal(min(2, seen), 0, f"choice of {words}")
        self._grounding = Grounding(request, tenant) if source == "model" else None
        self._grounded = {3: NEUTRAL, 2: _literal(2, 0, "value of the request or of a directory")}

    def literal(self, value: JsonValue, name: str = "", shape: Shape | None = None) -> Trace:
        """The label of a literal, for the parameter ``name`` of a capability or for nothing in particular."""
        if self._grounding is None:
            return self._literal
        grounded = self._grounding.integrity_of(value)
        if grounded is not None:
            return self._grounded[grounded]
        if shape is not None and not isinstance(value, dict | list) and (name, type(value), value) in shape.words:
            return self._manifest_word
        return self._literal


_WORDS = {
    "caller": "the caller's plan",
    "playbook": "the playbook",
    "model": "a model that read integrity {seen}",
    None: "an unknown author",
}


def _literal(integrity: int, confidentiality: int, words: str) -> Trace:
    if integrity == 3 and not confidentiality:
        return NEUTRAL
    link = Link(words)
    return Trace(integrity, confidentiality, False, link, link if confidentiality else None)
