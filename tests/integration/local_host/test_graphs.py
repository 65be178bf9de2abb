"""The graphs of the side-by-side measurements reach the digest every engine reaches, cold and warm, also when killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from bench.crash import measure as killed
from bench.peer_cases import CASES, DIGESTS, answer, digest
from bench.peers import measure
from local_host.durable.engine import EngineOptions
from local_host.durable.execution import Execution
from local_host.durable.executor import Reply, request_json
from local_host.durable.history import Event, sdk_events


@pytest.mark.parametrize("name", CASES)
def test_a_run_of_a_graph_ends_with_the_digest_that_proves_its_edges(name: str) -> None:
    figures = asyncio.run(measure(name, CASES[name](), EngineOptions()))
    assert figures["steps_per_s"] > 0


def test_a_host_that_replays_after_every_completion_comes_to_the_same() -> None:
    figures = asyncio.run(measure("chain100", CASES["chain100"](), EngineOptions(warm=False)))
    assert figures["episodes"] == 101


@pytest.mark.parametrize("name", CASES)
def test_the_digests_are_those_of_the_graphs_and_a_lost_edge_changes_them(name: str) -> None:
    graph = CASES[name]()
    answers: dict[str, int] = {}
    for step, parents in graph.items():
        answers[step] = answer(step, [answers[parent] for parent in parents])
    assert digest(graph, answers) == DIGESTS[name]
    last = list(graph)[-1]
    answers[last] = answer(last, [answers[parent] for parent in graph[last][1:]])
    assert digest(graph, answers) != DIGESTS[name]
    assert digest(graph, {step: answers[step] for step in graph if step != last}) == -1


def test_every_request_of_a_cold_host_holds_the_whole_history_although_its_texts_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[list[Any]] = []
    plain = Execution._start

    def watched(execution: Execution, new_events: Sequence[Event]) -> Reply:
        every = [*sdk_events(execution.events), *new_events]
        reply = plain(execution, new_events)
        expected = json.loads(request_json(every, None, "run", None))["history"]
        kept = [json.loads(text) for text in execution._recorded_texts()]
        assert kept == expected[: len(kept)]
        requests.append(expected)
        return reply

    monkeypatch.setattr(Execution, "_start", watched)
    asyncio.run(measure("fan200", CASES["fan200"](), EngineOptions(warm=False, max_batch=50)))
    assert len(requests) > 4
    assert all(earlier == later[: len(earlier)] for earlier, later in pairwise(requests))


@pytest.fixture(scope="module")
def crashed() -> dict[str, Any]:
    return asyncio.run(killed("layered500", kills=2, seed=11, step_s=0.002))


def test_a_host_killed_in_the_middle_ends_with_the_same_digest_and_repeats_only_what_was_open(
    crashed: dict[str, Any],
) -> None:
    assert crashed["ok"]
    assert (crashed["kills"], crashed["distinct"], crashed["still_running"]) == (2, 500, 0)
    # Open is what had been started and not been recorded; no layer of the graph is wider than 40 steps.
    assert crashed["repeated"] <= 2 * 2 * 40
    assert crashed["most_of_one_step"] <= 3
