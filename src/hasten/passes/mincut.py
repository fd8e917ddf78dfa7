"""The cheapest way to give each of many vertices one of two labels, when unlike neighbours cost something.

A vertex on the source's side has label 1, on the sink's side label 0; an edge u → v costs its capacity where u has 1
and v has 0. Dinic's algorithm; the graphs here have a few thousand edges at most, too few to need a library.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["SINK", "SOURCE", "Cut"]

SOURCE, SINK = 0, 1
FORBIDDEN = 1 << 60


@dataclass
class Cut:
    """Edges are added, then ``solve`` labels the vertices. Each edge also carries a count, for ``counted``."""

    heads: list[int] = field(default_factory=list)
    capacities: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    leaving: list[list[int]] = field(default_factory=lambda: [[], []])

    def vertex(self) -> int:
        """A new vertex."""
        self.leaving.append([])
        return len(self.leaving) - 1

    def edge(self, tail: int, head: int, cost: int, count: int = 0) -> None:
        """``cost`` (and ``count``) are paid where ``tail`` has label 1 and ``head`` label 0."""
        for a, b, capacity, number in ((tail, head, cost, count), (head, tail, 0, 0)):
            self.leaving[a].append(len(self.heads))
            self.heads.append(b)
            self.capacities.append(capacity)
            self.counts.append(number)

    def cost(self, ones: set[int]) -> tuple[int, int]:
        """(cost, count) of a labelling given by its vertices with label 1 (before ``solve`` uses capacities up)."""
        cost = count = 0
        for tail in ones | {SOURCE}:
            for index in self.leaving[tail]:
                if self.heads[index] not in ones and self.heads[index] != SOURCE:
                    cost, count = cost + self.capacities[index], count + self.counts[index]
        return cost, count

    def solve(self) -> set[int]:
        """The vertices with label 1 in the cheapest labelling; the fewest, where several are equally cheap."""
        left = list(self.capacities)
        while True:
            level = self._levels(left)
            if SINK not in level:
                return set(level) - {SOURCE}
            used = [0] * len(self.leaving)
            while self._push(left, level, used):
                pass

    def _levels(self, left: list[int]) -> dict[int, int]:
        level, queue = {SOURCE: 0}, deque([SOURCE])
        while queue:
            vertex = queue.popleft()
            for index in self.leaving[vertex]:
                head = self.heads[index]
                if left[index] > 0 and head not in level:
                    level[head] = level[vertex] + 1
                    queue.append(head)
        return level

    def _push(self, left: list[int], level: dict[int, int], used: list[int]) -> int:
        """One augmenting path along rising levels, found without recursion; returns what it carries."""
        path: list[int] = []
        vertex = SOURCE
        while vertex != SINK:
            while used[vertex] < len(self.leaving[vertex]):
                index = self.leaving[vertex][used[vertex]]
                head = self.heads[index]
                if left[index] > 0 and level.get(head) == level[vertex] + 1:
                    break
                used[vertex] += 1
            else:
                if not path:
                    return 0
                vertex = self.heads[path.pop() ^ 1]
                used[vertex] += 1
                continue
            path.append(index)
            vertex = head
        flow = min(left[index] for index in path)
        for index in path:
            left[index] -= flow
            left[index ^ 1] += flow
        return flow
