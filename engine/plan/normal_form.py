"""The normal form of a checked plan, and its hash: two spellings of one plan have one hash.

Left out are members that equal their default; ``needs`` names every edge, also those that only a reference makes, each once
and in the order of the steps; the answer names the steps it uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.canonical import canonical_form
from engine.domain.ids import PlanHash
from engine.domain.plan import Plan, Retry, Step


def _defaults(model: type[Step | Retry | Plan]) -> dict[str, Any]:
    fields = model.model_fields.items()
    return {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}


_STEP_DEFAULTS = _defaults(Step)
_RETRY_DEFAULTS = _defaults(Retry)


def normal_form(raw: JsonObject, needs: Sequence[Sequence[int]], uses: Sequence[str]) -> JsonObject:
    """The normal form of a document whose shape was checked. Shares values with ``raw``; neither may be changed."""
    ids = [step["id"] for step in raw["steps"]]
    answer: JsonObject = {"uses": list(uses)}
    if (raw.get("answer") or {}).get("instructions"):
        answer["instructions"] = raw["answer"]["instructions"]
    document: JsonObject = {"schema_version": raw.get("schema_version", "1.0"), "goal": raw["goal"], "answer": answer}
    if raw.get("rationale"):
        document["rationale"] = raw["rationale"]
    document["steps"] = [
        _normal_step(step, [ids[need] for need in sorted(earlier)])
        for step, earlier in zip(raw["steps"], needs, strict=True)
    ]
    return document


def _normal_step(step: JsonObject, needs: list[str]) -> JsonObject:
    normal = _without_defaults(step, _STEP_DEFAULTS)
    normal.pop("needs", None)
    if needs:
        normal["needs"] = needs
    if "retry" in normal:
        normal["retry"] = _without_defaults(normal["retry"], _RETRY_DEFAULTS)
    return normal


def _without_defaults(members: Mapping[str, Any], defaults: Mapping[str, Any]) -> JsonObject:
    return {name: value for name, value in members.items() if name not in defaults or value != defaults[name]}


def canonical_bytes(document: JsonObject) -> bytes:
    """The RFC 8785 form."""
    return canonical_form(document)


def hash_of(canonical: bytes) -> PlanHash:
    """SHA-256 in lower-case hex."""
    return PlanHash(hashlib.sha256(canonical).hexdigest())
