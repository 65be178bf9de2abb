"""What a planner model could say to the demo's intents. A script, not a model: it knows one plan and copies figures it is shown.

``./livoa demo --three-ways`` and the end-to-end tests run the product against it. A model named ``*-down`` answers 503.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.model_server.answers import Answer, ModelRequest, as_json, failure, text

_BLANK = "\u02c6"
_RESULT = re.compile(r"\[\[DATA-([0-9A-F]{24}) (\S+?)\]\]\n(.*?)\n\[\[END-\1\]\]", re.DOTALL)
_MAX_KPIS = 4


def answer(request: ModelRequest) -> Answer:
    """Route, plan, find nothing to criticise, write."""
    if request.model.endswith("-down"):
        return failure(503)
    match request.work:
        case "livoa_route":
            return as_json(route())
        case "livoa_plan_proposal":
            return as_json(proposal())
        case "livoa_critique":
            return as_json({"findings": []})
        case _:
            return text(written(request.prompt))


def route() -> dict[str, Any]:
    """The capabilities of the plan below."""
    names = ["marketing.compare_periods", "mmm.fit", "mmm.allocate_budget", "rag.search", "insights.summarise"]
    return {
        "domain": "marketing",
        "capabilities": [{"name": name, "score": 0.9} for name in names],
        "in_scope": True,
        "confidence": 0.92,
    }


def proposal() -> dict[str, Any]:
    """Compare, model and notes at once; the allocation after the model; the findings after all."""
    period = {"from": '"2026-07-01"', "to": '"2026-09-30"'}
    before = {"previous_from": '"2026-04-01"', "previous_to": '"2026-06-30"'}
    return {
        "cannot": None,
        "goal": "Explain the fall of paid-search ROI in Q3 2026 and propose a move of the Q4 budget",
        "rationale": "Comparison, mix model and notes do not need each other; the allocation needs the fitted model.",
        "steps": [
            _step("change", "marketing.compare_periods", _literals(**period, **before)),
            _step("mix", "mmm.fit", _literals(**period, compare_from='"2026-04-01"', compare_to='"2026-06-30"')),
            _step("notes", "rag.search", [_ref("query", "run#/intent"), *_literals(top_k="4")], optional=True),
            _step("allocation", "mmm.allocate_budget", [_ref("model", "steps.mix#/model"), *_literals(weeks="13")]),
            _step(
                "findings",
                "insights.summarise",
                [
                    _ref("currency", "steps.mix#/currency"),
                    _ref("changes", "steps.change#/changes", "[]"),
                    _ref("channels", "steps.mix#/channels"),
                    _ref("allocation", "steps.allocation#/allocation", "[]"),
                    _ref("passages", "steps.notes#/passages", "[]"),
                    *_literals(focus_channel='"paid_search"'),
                ],
            ),
        ],
        "answer": {
            "uses": ["findings", "allocation", "mix", "change"],
            "instructions": "The cause first, then the proposed move, then what to be careful about.",
        },
    }


def written(prompt: str) -> str:
    """A text that states the first figures of each result and names the step it has them from."""
    lines = ["Here is what the steps found.\n"]
    for _, step_id, shown in _RESULT.findall(prompt):
        try:
            result = json.loads(shown.replace(_BLANK, " "))
        except ValueError:
            continue
        lines.extend(_said(step_id.replace(_BLANK, " "), result))
    return "\n".join(lines) + "\n"


def _said(step_id: str, result: Any) -> list[str]:
    if not isinstance(result, dict):
        return []
    insights = [one["text"] for one in result.get("insights", ()) if isinstance(one, dict)][:3]
    kpis = [one for one in result.get("kpis", ()) if isinstance(one, dict) and "value" in one][:_MAX_KPIS]
    told = [f"- {insight} [{step_id}]" for insight in insights]
    return told + [f"- {kpi['name']}: {kpi['value']} {kpi.get('unit', '')} [{step_id}]" for kpi in kpis]


def _step(step_id: str, capability: str, inputs: list[dict[str, Any]], *, optional: bool = False) -> dict[str, Any]:
    return {
        "id": step_id,
        "capability": capability,
        "inputs": inputs,
        "needs": [],
        "when": None,
        "for_each": None,
        "wait": None,
        "approval": None,
        "timeout_s": None,
        "max_attempts": None,
        "on_failure": None,
        "optional": optional,
        "undo_capability": None,
        "undo_inputs": [],
    }


def _literals(**values: str) -> list[dict[str, Any]]:
    return [{"name": name, "kind": "literal", "value": value, "default": None} for name, value in values.items()]


def _ref(name: str, reference: str, default: str | None = None) -> dict[str, Any]:
    return {"name": name, "kind": "ref", "value": reference, "default": default}
