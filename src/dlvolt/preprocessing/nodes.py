"""What changes slowly along a recording: computed at nodes that are a hop apart, and a straight line in between.

Nodes are tied to the recording, so what lies between them is the same whichever chunk is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def between_nodes(at_node: Callable[[int], np.ndarray], hop: int, start: int, end: int) -> np.ndarray:
    """Return what `at_node` returns for each node, shape (N,), interpolated from sample `start` to `end`, (T, N)."""
    first, last = start // hop, max(end - 1, 0) // hop + 1
    nodes = np.stack([at_node(node) for node in range(first, last + 1)])
    position = np.arange(start, end) / hop - first
    before = position.astype(int)
    weight = (position - before)[:, None].astype(nodes.dtype)
    return nodes[before] + weight * (nodes[before + 1] - nodes[before])


def around_node(node: int, hop: int, reach: int, num_samples: int) -> tuple[int, int]:
    """Return start and end of the window that reaches to either side of a node, or of the recording's end."""
    centre = min(node * hop, num_samples)
    return max(0, centre - reach), min(num_samples, centre + reach)
