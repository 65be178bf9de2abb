"""A slow step delays only what needs it, on the real host with its faithful walk of the action list.

Recorded instants are compared with each other; no clock of the test is involved.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.e2e.client import Client
from tests.e2e.plans import pause, request_of, search

SLOW_S = 8.0


def instants(events: list[dict[str, Any]], kind: str) -> dict[str, datetime]:
    """When each step had an event of a kind."""
    found = [event for event in events if event["type"] == kind and event["data"].get("item") is None]
    return {event["data"]["step_id"]: datetime.fromisoformat(event["at"]) for event in found}


def test_chains_beside_a_slow_step_are_done_while_it_still_waits(contoso: Client) -> None:
    chain = [search("c0"), *(search(f"c{n}", f"c{n - 1}") for n in range(1, 4))]
    # Three steps that end at different times: what is listed late must not wait for what was listed before it.
    staggered = [pause("w0", 0.6), search("x0", "w0"), pause("w1", 0.3), search("x1", "w1"), search("x2", "x1")]
    fanned = {"id": "each", "for_each": ["tv", "email", "display"], "capability": "rag.search", "needs": ["c0"]}
    fanned["inputs"] = {"query": {"$template": "notes on {it}", "it": {"$ref": "item#"}}, "top_k": 1}
    run_id = contoso.submit(request_of(pause("slow", SLOW_S), *chain, *staggered, fanned, search("late", "slow")))
    assert contoso.finished(run_id)["status"] == "succeeded"

    events = contoso.events(run_id)
    started, succeeded = instants(events, "step.started"), instants(events, "step.succeeded")
    beside = {"c0", "c1", "c2", "c3", "w0", "x0", "w1", "x1", "x2", "each"}
    assert {step_id for step_id in beside if succeeded[step_id] > succeeded["slow"]} == set()
    # The pause counts from the moment that is fixed just before the start is recorded.
    assert (succeeded["slow"] - started["slow"]).total_seconds() > SLOW_S - 0.5
    assert started["late"] >= succeeded["slow"]
    for before, after in (("c0", "c1"), ("c1", "c2"), ("c2", "c3"), ("w0", "x0"), ("w1", "x1"), ("x1", "x2")):
        assert started[after] >= succeeded[before]
