"""Ways in trees, against NetworkX."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.graph.loops import path_in_tree


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 12))
def test_the_way_in_a_tree_or_none_where_it_is_long(seed: int, nodes: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    tree = nx.Graph([(k, int(rng.integers(max(0, k - 3), k))) for k in range(1, nodes)])
    a, b = (int(k) for k in rng.choice(nodes, 2, replace=False))
    way = nx.shortest_path(tree, a, b)
    assert path_in_tree(tree, a, b, most) == (way if len(way) - 1 <= most else [])
