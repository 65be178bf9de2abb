"""Plans and intents that the tests submit."""

from __future__ import annotations

from typing import Any

SAMPLE_INTENT = "Why did paid-search ROI fall in Q3 2026 and how should the Q4 budget move?"


def request_of(*steps: dict[str, Any], uses: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """A submission with a plan of its own."""
    plan = {"schema_version": "1.0", "goal": "A test of the whole product", "steps": list(steps)}
    return {"intent": "Carry out this plan", "plan": plan | {"answer": {"uses": uses or [steps[-1]["id"]]}}} | more


def search(step_id: str, *needs: str, query: Any = "budget guidelines", **more: Any) -> dict[str, Any]:
    """A quick call of an agent."""
    return {
        "id": step_id,
        "capability": "rag.search",
        "inputs": {"query": query, "top_k": 1},
        "needs": list(needs),
    } | more


def pause(step_id: str, seconds: float, *needs: str, **more: Any) -> dict[str, Any]:
    """A step that is over after some seconds."""
    return {"id": step_id, "wait": {"for_s": seconds}, "needs": list(needs)} | more


def fit(step_id: str, *needs: str, **more: Any) -> dict[str, Any]:
    """A call that keeps an agent busy for about a second."""
    return {"id": step_id, "capability": "mmm.fit", "inputs": {}, "needs": list(needs)} | more
