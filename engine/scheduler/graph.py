"""A skeleton compiled for scheduling: who waits for whom, and in which order ready steps are preferred.

Computed once per skeleton text and shared by every state of a run; holds nothing that changes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from engine.domain.skeleton import Skeleton, SkeletonStep, from_wire, to_wire

IN_FLIGHT_CAP = 64
"""Most calls one instance keeps open: it bounds history and the cost of each ``task_any``, whatever a plan asks for."""


@dataclass(frozen=True, slots=True)
class Graph:
    """``dependants[i]`` lists (step, tolerated): who needs step ``i``, and whether they survive its skip or failure.

    ``rank_of[i]`` is the place of step ``i`` in order of preference: longest expected path to the end first (critical
    path), then plan order; ``by_rank`` is its inverse. ``capacity`` is the number of calls that may be open at once;
    ``expected_s`` is how long the whole graph is expected to take then, at the least.
    ``cap_masks[c]`` has the bits of the ranks of all steps that share the cap ``c``. ``maps`` are the steps that are maps.
    ``text`` is the wire form that it was compiled from, if it was.
    """

    skeleton: Skeleton
    dependants: tuple[tuple[tuple[int, bool], ...], ...] = field(compare=False, repr=False)
    need_counts: tuple[int, ...] = field(compare=False, repr=False)
    rank_of: tuple[int, ...] = field(compare=False, repr=False)
    by_rank: tuple[int, ...] = field(compare=False, repr=False)
    capacity: int = field(compare=False)
    cap_masks: tuple[int, ...] = field(default=(), compare=False, repr=False)
    expected_s: float = field(default=0.0, compare=False)
    maps: frozenset[int] = field(default=frozenset(), compare=False, repr=False)
    text: str = field(default="", compare=False, repr=False)

    @property
    def steps(self) -> tuple[SkeletonStep, ...]:
        """The steps in plan order; every index in this package points here."""
        return self.skeleton.steps


def compile_graph(skeleton: Skeleton) -> Graph:
    """Compile in O(steps log steps + edges).

    Raises ``ValueError`` when a need does not point at an earlier step, a step tolerates what it does not need, or a cap
    or attempt count is below one.
    """
    steps = skeleton.steps
    dependants: list[list[tuple[int, bool]]] = [[] for _ in steps]
    need_counts = []
    for index, step in enumerate(steps):
        needs = sorted(set(step.needs))
        if needs and not 0 <= needs[0] <= needs[-1] < index:
            raise ValueError(f"step {index} of the skeleton needs a step that does not come before it")
        if not set(step.tolerates) <= set(needs):
            raise ValueError(f"step {index} of the skeleton tolerates a step it does not need")
        if step.max_attempts < 1 or step.concurrency < 1:
            raise ValueError(f"step {index} of the skeleton has a cap below one")
        if not 0 <= step.cap <= len(skeleton.caps):
            raise ValueError(f"step {index} of the skeleton counts towards a cap that there is not")
        need_counts.append(len(needs))
        for need in needs:
            dependants[need].append((index, need in step.tolerates))
    if min((skeleton.max_parallel, *skeleton.caps)) < 1:
        raise ValueError("the skeleton allows no step to run")
    tails_s = _tails(steps, dependants)
    by_rank = sorted(range(len(steps)), key=lambda index: (-tails_s[index], index))
    rank_of = [0] * len(steps)
    cap_masks = [0] * len(skeleton.caps)
    for rank, index in enumerate(by_rank):
        rank_of[index] = rank
        if steps[index].cap:
            cap_masks[steps[index].cap - 1] |= 1 << rank
    capacity = min(skeleton.max_parallel, IN_FLIGHT_CAP)
    return Graph(
        skeleton=skeleton,
        dependants=tuple(map(tuple, dependants)),
        need_counts=tuple(need_counts),
        rank_of=tuple(rank_of),
        by_rank=tuple(by_rank),
        capacity=capacity,
        cap_masks=tuple(cap_masks),
        expected_s=max(max(tails_s, default=0.0), sum(step.expected_s for step in steps) / capacity),
        maps=frozenset(index for index, step in enumerate(steps) if step.kind == "map"),
    )


def _tails(steps: tuple[SkeletonStep, ...], dependants: list[list[tuple[int, bool]]]) -> list[float]:
    """How long it takes from the start of each step to the end of the graph, along the longest way."""
    tail_s = [0.0] * len(steps)
    for index in range(len(steps) - 1, -1, -1):
        below_s = max((tail_s[dependant] for dependant, _ in dependants[index]), default=0.0)
        tail_s[index] = steps[index].expected_s + below_s
    return tail_s


def graph_from_wire(wire: dict[str, Any]) -> Graph:
    """Compile the wire form of a skeleton. Raises ``ValueError`` when it is malformed.

    A replay decodes the same text again and again, so the work is remembered by the text itself, not by the plan's hash:
    two versions of the catalog may compile one plan into different skeletons.
    """
    return graph_from_text(_text_of(wire))


@lru_cache(maxsize=64)
def graph_from_text(text: str) -> Graph:
    """Compile a skeleton from the text of its wire form. Raises ``ValueError`` as above."""
    try:
        skeleton = from_wire(json.loads(text))
        return replace(compile_graph(skeleton), text=text)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("the skeleton is malformed") from error


def graph_to_text(graph: Graph) -> str:
    """The inverse of ``graph_from_text``."""
    return graph.text or _text_of(graph_to_wire(graph))


def _text_of(wire: dict[str, Any]) -> str:
    return json.dumps(wire, separators=(",", ":"), sort_keys=True)


def graph_to_wire(graph: Graph) -> dict[str, Any]:
    """The inverse of ``graph_from_wire``."""
    return to_wire(graph.skeleton)
