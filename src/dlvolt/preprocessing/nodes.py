"""What changes slowly along a recording: computed at nodes that are a hop apart, and a straight line in between.

Nodes are tied to the recording, so what lies between them is the same whichever chunk is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def between_nodes(at_node: Callable[[int], np.ndarray], hop: int, start: int, end: int) -> np.ndarray:
    """Return the values at the samples from `start` to `end`, shape (T, N), of a function of nodes, shape (N,)."""
    first, last = start // hop, max(end - 1, 0) // hop + 1
    nodes = np.stack([at_node(node) for node in range(first, last + 1)])
    position = np.arange(start, end) / hop - first
    before = position.astype(int)
    weight = (position - before)[:, None].astype(nodes.dtype)
    return nodes[before] + weight * (nodes[before + 1] - nodes[before])


def around_node(node: int, hop: int, reach: int, num_samples: int) -> tuple[int, int]:
    """Return the ends of the window that is `reach` samples to either side of a node, or of the last sample."""
    centre = min(node * hop, num_samples)
    return max(0, centre - reach), min(num_samples, centre + reach)
