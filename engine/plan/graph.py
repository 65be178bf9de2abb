"""Plain graph facts over step indexes: an order, the cycles, the depth, the longest path. Linear, without recursion."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence

Needs = Sequence[Sequence[int]]
"""``needs[i]`` are the distinct indexes that node ``i`` comes after."""


def dependants_of(needs: Needs) -> list[list[int]]:
    """The edges the other way round."""
    dependants: list[list[int]] = [[] for _ in needs]
    for index, earlier in enumerate(needs):
        for need in earlier:
            dependants[need].append(index)
    return dependants


def topological_order(needs: Needs) -> list[int] | None:
    """Every node after its needs, otherwise as close to the given order as that allows; None when there is a cycle."""
    dependants = dependants_of(needs)
    open_needs = [len(earlier) for earlier in needs]
    ready = [index for index, count in enumerate(open_needs) if not count]
    order: list[int] = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for dependant in dependants[node]:
            open_needs[dependant] -= 1
            if not open_needs[dependant]:
                heapq.heappush(ready, dependant)
    return order if len(order) == len(needs) else None


def find_cycles(needs: Needs) -> list[list[int]]:
    """One shortest cycle through the first node of each strongly connected component, in order of that node.

    A cycle ``[a, b, c]`` reads: ``a`` needs ``b``, ``b`` needs ``c``, ``c`` needs ``a``.
    """
    component = _components(needs)
    first: dict[int, int] = {}
    size: dict[int, int] = {}
    for node, number in enumerate(component):
        first.setdefault(number, node)
        size[number] = size.get(number, 0) + 1
    starts = sorted(first[number] for number, count in size.items() if count > 1)
    return [_cycle_through(start, needs, component) for start in starts]


def _components(needs: Needs) -> list[int]:
    """The number of each node's strongly connected component (Tarjan's algorithm with an explicit stack)."""
    unseen = -1
    number = [unseen] * len(needs)
    low = [0] * len(needs)
    component = [unseen] * len(needs)
    path: list[int] = []
    counter = 0
    for root in range(len(needs)):
        if number[root] != unseen:
            continue
        work = [(root, 0)]
        while work:
            node, position = work.pop()
            if position == 0:
                number[node] = low[node] = counter
                counter += 1
                path.append(node)
            else:
                low[node] = min(low[node], low[needs[node][position - 1]])
            for offset in range(position, len(needs[node])):
                need = needs[node][offset]
                if number[need] == unseen:
                    work += [(node, offset + 1), (need, 0)]
                    break
                if component[need] == unseen:
                    low[node] = min(low[node], number[need])
            else:
                if low[node] == number[node]:
                    _close(node, path, component)
    return component


def _close(root: int, path: list[int], component: list[int]) -> None:
    while True:
        node = path.pop()
        component[node] = root
        if node == root:
            return


def _cycle_through(start: int, needs: Needs, component: list[int]) -> list[int]:
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for need in needs[node]:
            if need == start:
                cycle = [node]
                while node != start:
                    node = came_from[node]
                    cycle.append(node)
                return cycle[::-1]
            if component[need] == component[start] and need not in came_from:
                came_from[need] = node
                queue.append(need)
    raise AssertionError("a component of several nodes has a cycle through each of them")


def depth_of(needs: Needs, order: Sequence[int]) -> int:
    """The number of nodes on the longest path."""
    depth = [1] * len(needs)
    for node in order:
        depth[node] = 1 + max((depth[need] for need in needs[node]), default=0)
    return max(depth, default=0)


def longest_path(needs: Needs, order: Sequence[int], weight: Sequence[float]) -> tuple[list[int], float]:
    """The path with the greatest total weight, first node first, and that weight. Earlier nodes win ties."""
    total = list(weight)
    before: list[int | None] = [None] * len(needs)
    for node in order:
        if needs[node]:
            best = max(needs[node], key=lambda need: (total[need], -need))
            before[node] = best
            total[node] = weight[node] + total[best]
    if not needs:
        return [], 0.0
    last: int | None = max(range(len(needs)), key=lambda node: (total[node], -node))
    length, path = total[last or 0], []
    while last is not None:
        path.append(last)
        last = before[last]
    return path[::-1], length
