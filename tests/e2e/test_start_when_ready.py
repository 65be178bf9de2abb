"""A slow step delays only what needs it, on the real host with its faithful walk of the action list.

Recorded instants are compared with each other; no clock of the test is involved.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.e2e.client import Client
from tests.e2e.plans import pause, request_of, search

IDLE_S = 6.0
LONG = 60
"""Calls one after another; the chains beside them make less than a tenth as many."""


def instants(events: list[dict[str, Any]], kind: str) -> dict[str, datetime]:
    """When each step had an event of a kind."""
    found = [event for event in events if event["type"] == kind and event["data"].get("item") is None]
    return {event["data"]["step_id"]: datetime.fromisoformat(event["at"]) for event in found}


def each(step_id: str, count: int, *needs: str, **more: Any) -> dict[str, Any]:
    """A call for each of so many items."""
    inputs = {"query": {"$template": "notes on {it}", "it": {"$ref": "item#"}}, "top_k": 1}
    items = {"for_each": [f"subject {n}" for n in range(count)], "max_items": count}
    return {"id": step_id, "capability": "rag.search", "inputs": inputs, "needs": list(needs)} | items | more


def test_chains_beside_slow_steps_are_done_while_those_still_work_or_wait(contoso: Client) -> None:
    # The slow steps become ready one by one, so each stands alone in its entry of the action list. Everything that becomes
    # ready later is listed behind them, and must not wait for them.
    slow = [search("first"), each("busy", LONG, "first", concurrency=1), pause("idle", IDLE_S, "first")]
    late = [search("after_busy", "busy"), search("after_idle", "idle")]
    chain = [search("c0", "w0"), *(search(f"c{n}", f"c{n - 1}") for n in range(1, 4))]
    staggered = [pause("w0", 0.6), pause("w1", 0.9), search("x0", "w1"), search("x1", "x0"), each("fan", 3, "c0")]
    run_id = contoso.submit(request_of(*slow, *late, *chain, *staggered, uses=["after_busy", "after_idle", "c3"]))
    assert contoso.finished(run_id)["status"] == "succeeded"

    events = contoso.events(run_id)
    started, succeeded = instants(events, "step.started"), instants(events, "step.succeeded")
    behind = {"c0", "c1", "c2", "c3", "x0", "x1", "fan"}
    for step_id in ("busy", "idle"):
        assert {other for other in behind if started[other] < started[step_id]} == set()
        assert {other for other in behind if succeeded[other] > succeeded[step_id]} == set()
        assert started[f"after_{step_id}"] >= succeeded[step_id]
    # The pause counts from the moment that is fixed just before the start is recorded.
    assert (succeeded["idle"] - started["idle"]).total_seconds() > IDLE_S - 0.5
    for before, after in (("first", "busy"), ("w0", "c0"), ("c0", "c1"), ("c1", "c2"), ("c2", "c3"), ("w1", "x0")):
        assert started[after] >= succeeded[before]
