"""The three graphs of the side-by-side measurements with other engines, and the number that proves a run honoured the edges.

Every step answers a small integer made of its id and of its parents' answers; the digest of a run is the sum of its last steps'
answers. `DIGESTS` are the values every engine must reach: a change of a generator below changes them, and nothing is comparable.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

Graph = dict[str, list[str]]
"""Step id to the ids of its parents, parents first."""

_MASK = 0x7FFFFFFF
_SEED = 20240607
DIGESTS = {"chain100": 138339006, "fan200": 1457795352, "layered500": 1984764801}


def _name(index: int) -> str:
    return f"s{index:04d}"


def chain(count: int = 100) -> Graph:
    """One step after the other."""
    return {_name(index): [_name(index - 1)] if index else [] for index in range(count)}


def fan(count: int = 200) -> Graph:
    """One source, `count` - 2 steps side by side, one sink."""
    middle = [_name(index) for index in range(1, count - 1)]
    return {_name(0): [], **{step: [_name(0)] for step in middle}, _name(count - 1): middle}


def layered(count: int = 500) -> Graph:
    """Layers of 5 to 40 steps with 1 to 3 parents in the layer before, a fifth of them with one from further back, and a sink."""
    dice = random.Random(_SEED)

    def pick(steps: Sequence[str], size: int) -> str:
        return steps[int(dice.random() * size)]

    graph: Graph = {}
    layers: list[list[str]] = []
    while len(graph) < count - 1:
        width = min(5 + int(dice.random() * 36), count - 1 - len(graph))
        layer = [_name(len(graph) + offset) for offset in range(width)]
        for step in layer:
            parents: dict[str, None] = {}
            if layers:
                for _ in range(1 + int(dice.random() * 3)):
                    parents[pick(layers[-1], len(layers[-1]))] = None
                if len(layers) > 1 and dice.random() < 0.2:
                    further = layers[int(dice.random() * (len(layers) - 1))]
                    parents[pick(further, len(further))] = None
            graph[step] = sorted(parents)
        layers.append(layer)
    graph[_name(count - 1)] = sorted(last_steps(graph))
    return graph


CASES: dict[str, Callable[[], Graph]] = {"chain100": chain, "fan200": fan, "layered500": layered}


def last_steps(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Steps nobody waits for."""
    waited_for = {parent for parents in graph.values() for parent in parents}
    return [step for step in graph if step not in waited_for]


def answer(step: str, of_parents: Iterable[int]) -> int:
    """What a step answers."""
    return (zlib.crc32(step.encode()) + sum(of_parents)) & _MASK


def digest(graph: Graph, answers: Mapping[str, int]) -> int:
    """The digest of a finished run; -1 when steps are missing."""
    if answers.keys() != graph.keys():
        return -1
    return sum(answers[step] for step in last_steps(graph)) & _MASK
